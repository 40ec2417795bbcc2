//! A config with `{{ … }}` in its strings.

use std::collections::BTreeSet;
use std::fmt;

use minijinja::Environment;
use serde_json::{Map, Value};

use super::needs::Needs;
use super::syntax::{self, Text};
use super::{Expression, Names, Scope, engine};
use crate::problem::{Pointed, token};

/// A compiled JSON value whose strings may hold templates. A string that is one whole `{{ expression }}` keeps the
/// type of what it comes to.
pub struct Template(Form);

/// Most of what is compiled holds no template: that takes no more room than the value.
enum Form {
    Constant(Value),
    Marked(Box<Marked>),
}

/// A value some of whose strings hold templates.
struct Marked {
    root: Part,
    /// Where its expressions are, and what they name.
    spots: Vec<Spot>,
    names: BTreeSet<String>,
    /// The secrets that it names.
    secrets: BTreeSet<String>,
    /// What of it the engine needs; bare names are looked up without it.
    needs: Needs,
    /// Owns the texts; there is none if there are no texts.
    texts: Option<Environment<'static>>,
}

/// What a constant names.
static NOTHING: BTreeSet<String> = BTreeSet::new();

/// A string with template marks in it.
#[derive(Debug)]
pub(crate) struct Spot {
    /// Where it is in the value.
    pub(crate) pointer: String,
    /// The nodes whose outputs it names.
    pub(crate) names: BTreeSet<String>,
    /// Whether it names `output`, which only an edge has.
    pub(crate) names_output: bool,
    /// Whether it names an event, which only a schedule of that kind has.
    pub(crate) names_event: bool,
    /// The secrets that it names.
    pub(crate) secrets: BTreeSet<String>,
}

enum Part {
    Constant(Value),
    Whole(Expression),
    /// The name of a text in the template's environment.
    Text(String),
    List(Vec<Part>),
    Map(Vec<(String, Part)>),
}

/// Whether a string holds template marks.
pub(crate) fn is_marked(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

impl Template {
    /// Compiles a JSON value, or names the strings in it that do not compile.
    pub fn compile(value: &Value) -> Result<Self, Vec<Pointed>> {
        Self::compile_in(value, Names::Run)
    }

    /// As [`Self::compile`], for what sees `names`.
    pub fn compile_in(value: &Value, names: Names) -> Result<Self, Vec<Pointed>> {
        let siblings = count_marked(value);
        if siblings == 0 {
            return Ok(Self::constant(value.clone()));
        }
        if siblings > engine::MOST {
            let detail =
                format!("{siblings} strings hold templates, where at most {} may", engine::MOST);
            return Err(vec![Pointed::new("", detail)]);
        }
        let mut builder = Builder {
            siblings,
            scope: names,
            spots: Vec::new(),
            needs: Needs::default(),
            texts: None,
            errors: Vec::new(),
        };
        let root = builder.part(value, String::new());
        if !builder.errors.is_empty() {
            return Err(builder.errors);
        }
        let Builder { spots, needs, texts, .. } = builder;
        let names = spots.iter().flat_map(|spot| &spot.names).cloned().collect();
        let secrets = spots.iter().flat_map(|spot| &spot.secrets).cloned().collect();
        Ok(Self(Form::Marked(Box::new(Marked { root, names, secrets, spots, needs, texts }))))
    }

    /// A template without templates: it renders to `value`.
    pub fn constant(value: Value) -> Self {
        Self(Form::Constant(value))
    }

    fn marked(&self) -> Option<&Marked> {
        match &self.0 {
            Form::Constant(_) => None,
            Form::Marked(marked) => Some(marked),
        }
    }

    /// The nodes whose outputs it names.
    pub fn names(&self) -> &BTreeSet<String> {
        self.marked().map_or(&NOTHING, |marked| &marked.names)
    }

    /// The secrets that it names.
    pub fn secrets(&self) -> &BTreeSet<String> {
        self.marked().map_or(&NOTHING, |marked| &marked.secrets)
    }

    /// Where its expressions are, and what they name.
    pub(crate) fn spots(&self) -> &[Spot] {
        self.marked().map_or(&[], |marked| &marked.spots)
    }

    /// Whether it renders to the same value always.
    pub fn is_constant(&self) -> bool {
        self.marked().is_none()
    }

    /// The value with its expressions evaluated. An error names the place.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, String> {
        match &self.0 {
            Form::Constant(value) => Ok(value.clone()),
            Form::Marked(marked) => marked.render(scope),
        }
    }
}

impl Marked {
    fn render(&self, scope: &Scope<'_>) -> Result<Value, String> {
        let context = self.needs.context(scope)?;
        let mut place = Vec::new();
        self.part(&self.root, scope, &context, &mut place).map_err(|message| {
            let pointer: String = place.iter().rev().map(|part| format!("/{part}")).collect();
            if pointer.is_empty() { message } else { format!("{pointer}: {message}") }
        })
    }

    /// Collects the place of an error from the inside out.
    fn part(
        &self,
        part: &Part,
        scope: &Scope<'_>,
        context: &minijinja::Value,
        place: &mut Vec<String>,
    ) -> Result<Value, String> {
        match part {
            Part::Constant(value) => Ok(value.clone()),
            Part::Whole(expression) => expression.evaluate_in(scope, context),
            Part::Text(name) => self.text(name, context).map(Value::String),
            Part::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let value = self.part(item, scope, context, place);
                    list.push(value.inspect_err(|_| place.push(index.to_string()))?);
                }
                Ok(Value::Array(list))
            }
            Part::Map(fields) => {
                let mut map = Map::new();
                for (key, field) in fields {
                    let value = self.part(field, scope, context, place);
                    map.insert(key.clone(), value.inspect_err(|_| place.push(token(key)))?);
                }
                Ok(Value::Object(map))
            }
        }
    }

    fn text(&self, name: &str, context: &minijinja::Value) -> Result<String, String> {
        let texts = self.texts.as_ref().ok_or("the text is missing")?;
        texts
            .get_template(name)
            .and_then(|text| text.render(context.clone()))
            .map_err(|error| engine::sentence(&error))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("names", self.names()).finish_non_exhaustive()
    }
}

fn count_marked(value: &Value) -> usize {
    match value {
        Value::String(text) => usize::from(is_marked(text)),
        Value::Array(items) => items.iter().map(count_marked).sum(),
        Value::Object(fields) => fields.values().map(count_marked).sum(),
        _ => 0,
    }
}

struct Builder {
    siblings: usize,
    scope: Names,
    spots: Vec<Spot>,
    needs: Needs,
    texts: Option<Environment<'static>>,
    errors: Vec<Pointed>,
}

impl Builder {
    fn part(&mut self, value: &Value, pointer: String) -> Part {
        match value {
            _ if count_marked(value) == 0 => Part::Constant(value.clone()),
            Value::String(text) => self.string(text, &pointer).unwrap_or_else(|message| {
                self.errors.push(Pointed::new(pointer, message));
                Part::Constant(Value::Null)
            }),
            Value::Array(items) => Part::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.part(item, format!("{pointer}/{index}")))
                    .collect(),
            ),
            Value::Object(fields) => Part::Map(
                fields
                    .iter()
                    .map(|(key, field)| {
                        (key.clone(), self.part(field, format!("{pointer}/{}", token(key))))
                    })
                    .collect(),
            ),
            other => Part::Constant(other.clone()),
        }
    }

    fn string(&mut self, text: &str, pointer: &str) -> Result<Part, String> {
        match syntax::read_text(text, self.scope)? {
            Text::Whole(source) => {
                let expression = Expression::compile_among(source, self.siblings, self.scope)?;
                self.spot(&expression.needs, pointer);
                if expression.is_evaluated() {
                    self.needs.merge(&expression.needs);
                }
                Ok(Part::Whole(expression))
            }
            Text::Mixed(needs) => {
                self.spot(&needs, pointer);
                self.needs.merge(&needs);
                let siblings = self.siblings;
                self.texts
                    .get_or_insert_with(|| engine::environment(siblings).clone())
                    .add_template_owned(pointer.to_owned(), text.to_owned())
                    .map_err(|error| engine::sentence(&error))?;
                Ok(Part::Text(pointer.to_owned()))
            }
        }
    }

    fn spot(&mut self, needs: &Needs, pointer: &str) {
        self.spots.push(Spot {
            pointer: pointer.to_owned(),
            names: needs.nodes(),
            names_output: needs.has("output"),
            names_event: needs.has("event") || needs.has("data"),
            secrets: needs.secrets(),
        });
    }
}
