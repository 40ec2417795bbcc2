//! What a schedule starts: its templates, and what they come to for one fire.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Kind, Spec, Start};
use crate::clock::{self, Instant};
use crate::expression::{Expression, Names, NoOutputs, Scope, Template, is_marked};
use crate::pipeline::{self, Node};
use crate::problem::{Pointed, unstorable};
use crate::tool::Catalogue;

/// The largest input that a fire's templates may come to, in bytes: as much as a request may carry.
const LARGEST: usize = 1024 * 1024;

/// The templates of what is started, compiled.
#[derive(Debug)]
pub struct Starter {
    input: Template,
    /// What the action's node is read from, without its input.
    action: Option<Map<String, Value>>,
    pipeline: Option<String>,
    /// What an action is checked against; none: nothing here.
    tools: Option<Catalogue>,
}

/// The circumstances of one fire.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// The schedule.
    pub schedule: Uuid,
    /// When it was to fire.
    pub fire_at: Instant,
    /// `{id, type, data, depth, at}` of the event; null when there is none.
    pub event: &'a Value,
}

/// What one fire starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// The newest version of a pipeline.
    Pipeline {
        /// Its name.
        name: String,
        /// The run's input, which its schema has not seen yet.
        input: Value,
    },
    /// An action.
    Action {
        /// Its node, complete.
        node: Box<Node>,
        /// The run's input.
        input: Value,
    },
}

impl Starter {
    /// Compiles the templates, and checks an action as far as it is known before it is rendered.
    pub fn compile(spec: &Spec, tools: Option<&Catalogue>) -> Result<Self, Vec<Pointed>> {
        let (input, action, pipeline) = match &spec.start {
            Start::Pipeline { pipeline, input } => (input, None, Some(pipeline.clone())),
            Start::Action { action, input, timeout, lane } => {
                let mut body = Map::new();
                body.insert("action".to_owned(), json!(action));
                let retry = spec.retry.as_ref().map(|retry| json!(retry));
                let rest = [
                    ("retry", retry),
                    ("timeout", timeout.clone().map(Value::String)),
                    ("lane", lane.clone().map(Value::String)),
                ];
                for (key, value) in rest {
                    if let Some(value) = value {
                        body.insert(key.to_owned(), value);
                    }
                }
                (input, Some(body), None)
            }
        };
        if let Some(action) = &action {
            let mut body = action.clone();
            body.insert("input".to_owned(), input.clone());
            let checked = pipeline::check_action_in(&Value::Object(body), Names::Fire, tools);
            checked.map_err(|errors| errors.into_iter().map(below_start).collect::<Vec<_>>())?;
        }
        let at_input =
            |error: Pointed| Pointed::new(format!("/start/input{}", error.pointer), error.detail);
        let template = Template::compile_in(input, Names::Fire)
            .map_err(|errors| errors.into_iter().map(at_input).collect::<Vec<_>>())?;
        if spec.kind != Kind::Event
            && let Some(spot) = template.spots().iter().find(|spot| spot.names_event)
        {
            let detail = "`event` is there only in a schedule of the kind `event`";
            return Err(vec![Pointed::new(format!("/start/input{}", spot.pointer), detail)]);
        }
        Ok(Self { input: template, action, pipeline, tools: tools.cloned() })
    }

    /// What a fire starts. The error says why nothing.
    pub fn start(&self, spec: &Spec, occasion: Occasion<'_>) -> Result<Started, String> {
        let input = render(&self.input, spec, occasion)?;
        if let Some(pointer) = unstorable(&input) {
            return Err(format!(
                "the input has a character U+0000 at {pointer:?}, which the database cannot hold"
            ));
        }
        if input.to_string().len() > LARGEST {
            return Err(format!("the input has over {LARGEST} bytes"));
        }
        match (&self.pipeline, &self.action) {
            (Some(name), _) => Ok(Started::Pipeline { name: name.clone(), input }),
            (None, Some(action)) => {
                let mut body = action.clone();
                body.insert("input".to_owned(), literal(input.clone()));
                let (body, tools) = (Value::Object(body), self.tools.as_ref());
                let node = pipeline::check_action_in(&body, Names::Run, tools)
                    .map_err(|errors| said(&errors))?;
                Ok(Started::Action { node: Box::new(node), input })
            }
            (None, None) => Err("it starts nothing".to_owned()),
        }
    }
}

/// Whether the condition of a schedule that listens is true of an event.
pub fn is_met(
    condition: Option<&Expression>,
    spec: &Spec,
    occasion: Occasion<'_>,
) -> Result<bool, String> {
    let Some(condition) = condition else { return Ok(true) };
    let input = names(spec, occasion);
    let null = Value::Null;
    condition.is_true(&Scope {
        input: &input,
        outputs: &NoOutputs,
        run: &null,
        output: None,
        secrets: None,
    })
}

fn render(template: &Template, spec: &Spec, occasion: Occasion<'_>) -> Result<Value, String> {
    let input = names(spec, occasion);
    let null = Value::Null;
    template.render(&Scope {
        input: &input,
        outputs: &NoOutputs,
        run: &null,
        output: None,
        secrets: None,
    })
}

/// What templates see.
fn names(spec: &Spec, occasion: Occasion<'_>) -> Value {
    json!({
        "schedule": {
            "id": occasion.schedule, "name": spec.name, "kind": spec.kind, "tags": spec.tags,
            "timezone": spec.timezone,
        },
        "fire_at": clock::text(&occasion.fire_at),
        "event": occasion.event,
        "data": occasion.event.get("data").unwrap_or(&Value::Null),
    })
}

/// What was rendered is data: what looks like a template in it is put in quotes, so that it is not rendered again.
fn literal(value: Value) -> Value {
    match value {
        Value::String(text) if is_marked(&text) => {
            Value::String(format!("{{{{ {} }}}}", Value::String(text)))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(literal).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, field)| (key, literal(field))).collect())
        }
        other => other,
    }
}

/// `retry` stands beside `start`, the rest within.
fn below_start(error: Pointed) -> Pointed {
    let pointer = match error.pointer.as_str() {
        pointer if pointer.starts_with("/retry") => pointer.to_owned(),
        pointer => format!("/start{pointer}"),
    };
    Pointed::new(pointer, error.detail)
}

/// Errors as one text.
pub fn said(errors: &[Pointed]) -> String {
    let shown: Vec<String> =
        errors.iter().take(3).map(|error| format!("{}: {}", error.pointer, error.detail)).collect();
    shown.join("; ")
}
