//! `echo`: its output is its input, moved. The no-op of tests and benchmarks.

use common::tool::Spec;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};

use crate::tool::{BuiltIn, NoSettings, Shared, Tool, spec};
use crate::{Context, Outcome};

pub(crate) struct Echo;

impl Tool for Echo {
    fn execute<'a>(&'a self, input: Value, _: &'a Context) -> BoxFuture<'a, Outcome> {
        ready(Ok(input)).boxed()
    }
}

impl BuiltIn for Echo {
    type Settings = NoSettings;

    fn spec() -> Spec {
        spec("echo", "Returns its input.", json!({ "type": "object" }), None)
    }

    fn open(_: NoSettings, _: &Shared) -> anyhow::Result<Self> {
        Ok(Self)
    }
}
