//! Which parts of the scope an expression reads, so that only these are handed to the engine.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::Value as Handed;
use serde_json::Value;

use super::Scope;
use super::syntax::FIRE;
use super::value;

/// A tree of constant keys: `input.user.name` is `input` → `user` → `name`.
#[derive(Debug, Default, Clone)]
pub(super) struct Needs {
    /// All below this key is read.
    whole: bool,
    keys: BTreeMap<String, Needs>,
}

impl Needs {
    /// Adds what a path leads to.
    pub(super) fn add<'a>(&mut self, path: impl IntoIterator<Item = &'a str>) {
        let mut at = self;
        for key in path {
            at = at.keys.entry(key.to_owned()).or_default();
        }
        at.whole = true;
    }

    /// Adds what `other` needs.
    pub(super) fn merge(&mut self, other: &Needs) {
        self.whole |= other.whole;
        for (key, needs) in &other.keys {
            self.keys.entry(key.clone()).or_default().merge(needs);
        }
    }

    /// Whether anything below this name is read.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.contains_key(name)
    }

    /// The nodes whose outputs are read.
    pub(super) fn nodes(&self) -> BTreeSet<String> {
        self.keys.get("nodes").map(|nodes| nodes.keys.keys().cloned().collect()).unwrap_or_default()
    }

    /// The secrets that are read.
    pub(super) fn secrets(&self) -> BTreeSet<String> {
        self.keys
            .get("secrets")
            .map(|names| names.keys.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The scope as the engine takes it: what is needed of it.
    pub(super) fn context(&self, scope: &Scope<'_>) -> Result<Handed, String> {
        let mut context = BTreeMap::new();
        for (name, needs) in &self.keys {
            let handed = match name.as_str() {
                "input" => needs.pruned(scope.input)?,
                "run" => needs.pruned(scope.run)?,
                name if FIRE.contains(&name) => {
                    needs.pruned(scope.input.get(name).unwrap_or(&Value::Null))?
                }
                name @ ("item" | "index") => {
                    let item = scope.item.ok_or("`item` is there only with `for_each`")?;
                    needs.pruned(item.get(name).unwrap_or(&Value::Null))?
                }
                "output" => needs.pruned(
                    scope.output.ok_or("`output` is there only in the condition of an edge")?,
                )?,
                "secrets" => needs.pruned(
                    scope.secrets.ok_or("`secrets` are there only in the config of an action")?,
                )?,
                _ => needs.outputs(scope)?,
            };
            context.insert(name.as_str(), handed);
        }
        Ok(Handed::from_pairs(context))
    }

    /// `{id: {"output": …}}` of the nodes that are read.
    fn outputs(&self, scope: &Scope<'_>) -> Result<Handed, String> {
        let mut nodes = BTreeMap::new();
        for (id, node) in &self.keys {
            if let Some(needs) = node.keys.get("output") {
                let output = scope.outputs.output(id).unwrap_or(&Value::Null);
                let node = Handed::from_pairs([("output", needs.pruned(output)?)]);
                nodes.insert(id.as_str(), node);
            }
        }
        Ok(Handed::from_pairs(nodes))
    }

    /// The value, without the keys of objects that are not read.
    fn pruned(&self, value: &Value) -> Result<Handed, String> {
        match value {
            Value::Object(fields) if !self.whole => self
                .keys
                .iter()
                .filter_map(|(key, needs)| Some((key, needs, fields.get(key)?)))
                .map(|(key, needs, field)| Ok((key.as_str(), needs.pruned(field)?)))
                .collect::<Result<Vec<_>, String>>()
                .map(Handed::from_pairs),
            _ => value::from_json(value),
        }
    }
}
