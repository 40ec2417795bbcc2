//! `send_notification`: tells people, or another system, that something is so.
//!
//! Config: `channel`, and what it takes: `webhook` ([`webhook`]), `slack` ([`slack`]) or `email` ([`email`]). Output:
//! `{channel, …}`. What is sent carries the node's idempotency key, the same at every attempt, so that who receives it
//! twice can tell.

mod email;
mod schema;
mod slack;
mod smtp;
mod webhook;

use std::sync::Arc;

use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use crate::guard::Guard;
use crate::http::Http;
use crate::tool::{BuiltIn, NoSettings, Shared, Tool};
use crate::{Context, Outcome, input};

pub(crate) struct SendNotification {
    guard: Arc<Guard>,
    http: Arc<Http>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "channel", rename_all = "snake_case")]
enum Config {
    Webhook(webhook::Config),
    Slack(slack::Config),
    Email(Box<email::Config>),
}

impl BuiltIn for SendNotification {
    type Settings = NoSettings;

    fn spec() -> Spec {
        schema::spec()
    }

    fn open(_: NoSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self { guard: shared.guard.clone(), http: shared.http.clone() })
    }
}

impl Tool for SendNotification {
    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        async move {
            match input::read("send_notification", input)? {
                Config::Webhook(config) => webhook::send(&self.http, config, context).await,
                Config::Slack(config) => slack::send(&self.http, config, context).await,
                Config::Email(config) => email::send(&self.guard, *config, context).await,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
