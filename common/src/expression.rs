//! Expressions and templates: Jinja, sandboxed.
//!
//! Both are compiled once, when a definition is, and know which nodes' outputs they name. They see `input`,
//! `nodes.<id>.output` (the id a constant), `run`, `secrets.<name>` in the config of an action, and on an edge `output`; no files, no network, no clock. An
//! undefined name is an error that names it. How long they run and what they build is limited by fuel.

mod engine;
mod needs;
mod syntax;
mod template;
mod value;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::BuildHasher;

use serde_json::Value;

use self::needs::Needs;
use self::syntax::{Path, Reading};
pub use self::template::Template;
pub(crate) use self::template::is_marked;

/// What an expression sees.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The run's input.
    pub input: &'a Value,
    /// The outputs of the nodes before.
    pub outputs: &'a dyn Outputs,
    /// The run itself: its id and the like.
    pub run: &'a Value,
    /// On an edge: its source's output.
    pub output: Option<&'a Value>,
    /// In the config of an action: the secrets that it names, by name.
    pub secrets: Option<&'a Value>,
    /// In what is rendered for each item of a list: `{item, index}`.
    pub item: Option<&'a Value>,
}

/// Which names an expression may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Those of a run: `input`, `nodes`, `run`, and on an edge `output`.
    Run,
    /// Those of a schedule's fire: `schedule`, `fire_at`, `event`, and `data`, which is the event's. The scope's `input`
    /// is an object of these.
    Fire,
    /// Those of an event that a node waits for: `event`, and `data`, which is the event's. The scope's `input` is an
    /// object of these.
    Event,
    /// Those of a run, and `item` and `index` of the item for which it is evaluated.
    Item,
}

/// Where the outputs that expressions name come from.
pub trait Outputs {
    /// The output of a node; none (null, to an expression) if it ended without one.
    fn output(&self, node: &str) -> Option<&Value>;
}

/// No outputs at all: the scope of a single action.
#[derive(Debug, Clone, Copy)]
pub struct NoOutputs;

impl Outputs for NoOutputs {
    fn output(&self, _: &str) -> Option<&Value> {
        None
    }
}

impl<S: BuildHasher> Outputs for HashMap<String, Value, S> {
    fn output(&self, node: &str) -> Option<&Value> {
        self.get(node)
    }
}

impl Outputs for BTreeMap<String, Value> {
    fn output(&self, node: &str) -> Option<&Value> {
        self.get(node)
    }
}

/// A compiled expression, such as an edge's condition.
pub struct Expression {
    source: String,
    names: BTreeSet<String>,
    needs: Needs,
    form: Form,
}

/// How an expression is evaluated.
enum Form {
    /// A bare name such as `nodes.a.output.items`: looked up in the JSON as it is.
    Path(Path),
    /// Anything else.
    Engine(minijinja::Expression<'static, 'static>),
}

impl Expression {
    /// Compiles an expression, or says why it is none. One that is put in `{{ … }}` is taken without them.
    pub fn compile(source: &str) -> Result<Self, String> {
        let trimmed = source.trim();
        let bare = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        Self::compile_among(bare.unwrap_or(source), 1, Names::Run)
    }

    /// Compiles the condition of a schedule that listens: it sees `event`, and the same names as a fire's templates.
    pub fn compile_condition(source: &str) -> Result<Self, String> {
        let trimmed = source.trim();
        let bare = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        Self::compile_among(bare.unwrap_or(source), 1, Names::Fire)
    }

    /// Compiles the condition of a node that waits for an event: it sees `event` and its `data`.
    pub fn compile_event(source: &str) -> Result<Self, String> {
        let trimmed = source.trim();
        let bare = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        Self::compile_among(bare.unwrap_or(source), 1, Names::Event)
    }

    /// Compiles one of `siblings` expressions that are evaluated together, and share a budget.
    fn compile_among(source: &str, siblings: usize, names: Names) -> Result<Self, String> {
        let Reading { needs, path } = syntax::read_expression(source, names)?;
        let form = match path {
            Some(path) => Form::Path(path),
            None => Form::Engine(
                engine::environment(siblings)
                    .compile_expression_owned(source.to_owned())
                    .map_err(|error| engine::sentence(&error))?,
            ),
        };
        Ok(Self { source: source.to_owned(), names: needs.nodes(), needs, form })
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The nodes whose outputs it names.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether it names `output`, which only an edge has.
    pub fn names_output(&self) -> bool {
        self.needs.has("output")
    }

    /// Whether it names a secret, which only the config of an action has.
    pub fn names_secrets(&self) -> bool {
        self.needs.has("secrets")
    }

    /// Whether the engine is needed to evaluate it.
    fn is_evaluated(&self) -> bool {
        matches!(self.form, Form::Engine(_))
    }

    /// What it comes to.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, String> {
        match &self.form {
            Form::Path(path) => path.resolve(scope).cloned(),
            Form::Engine(_) => self.evaluate_in(scope, &self.needs.context(scope)?),
        }
    }

    /// As [`Self::evaluate`], in a context that was made of the scope before.
    fn evaluate_in(&self, scope: &Scope<'_>, context: &minijinja::Value) -> Result<Value, String> {
        match &self.form {
            Form::Path(path) => path.resolve(scope).cloned(),
            Form::Engine(compiled) => {
                let value =
                    compiled.eval(context.clone()).map_err(|error| engine::sentence(&error))?;
                value::to_json(&value)
            }
        }
    }

    /// Whether it is true. What is neither true nor false is an error that says what it was.
    pub fn is_true(&self, scope: &Scope<'_>) -> Result<bool, String> {
        match self.evaluate(scope)? {
            Value::Bool(is_true) => Ok(is_true),
            other => Err(format!(
                "`{}` is {}, where true or false is wanted",
                value::excerpt(&self.source),
                value::describe(&other)
            )),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}
