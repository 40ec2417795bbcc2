//! An expression that is nothing but a name, such as `nodes.a.output.items`.

use minijinja::machinery::ast::Expr;
use serde_json::Value;

use super::constant_key;
use super::walk::FIRE;
use crate::expression::Scope;

/// A name: the first of its keys is a name of the scope.
#[derive(Debug)]
pub(in crate::expression) struct Path(Vec<String>);

impl Path {
    /// The path that an expression is, if it is one.
    pub(super) fn of(expression: &Expr<'_>) -> Option<Self> {
        keys(expression).map(|keys| Self(keys.into_iter().map(str::to_owned).collect()))
    }

    /// What it leads to.
    pub(in crate::expression) fn resolve<'a>(
        &self,
        scope: &Scope<'a>,
    ) -> Result<&'a Value, String> {
        static NULL: Value = Value::Null;
        let key = |index: usize| self.0.get(index).map_or("", String::as_str);
        let (mut at, mut used) = match key(0) {
            "input" => (scope.input, 1),
            "run" => (scope.run, 1),
            name if FIRE.contains(&name) => (scope.input.get(name).unwrap_or(&NULL), 1),
            name @ ("item" | "index") => {
                let item = scope.item.ok_or("`item` is there only with `for_each`")?;
                (item.get(name).unwrap_or(&NULL), 1)
            }
            "output" => {
                (scope.output.ok_or("`output` is there only in the condition of an edge")?, 1)
            }
            "secrets" => {
                (scope.secrets.ok_or("`secrets` are there only in the config of an action")?, 1)
            }
            _ => (scope.outputs.output(key(1)).unwrap_or(&NULL), 3),
        };
        while let Some(key) = self.0.get(used) {
            used += 1;
            at = at.get(key).ok_or_else(|| format!("`{}` is undefined", self.text(used)))?;
        }
        Ok(at)
    }

    /// The first keys as one would write them.
    fn text(&self, count: usize) -> String {
        let mut text = String::new();
        for key in self.0.iter().take(count) {
            let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !key.starts_with(|c: char| c.is_ascii_digit());
            match (text.is_empty(), is_plain) {
                (true, _) => text.push_str(key),
                (false, true) => text.push_str(&format!(".{key}")),
                (false, false) => text.push_str(&format!("[{key:?}]")),
            }
        }
        text
    }
}

/// The constant keys that an expression consists of, the variable first.
pub(super) fn keys<'a>(expression: &'a Expr<'_>) -> Option<Vec<&'a str>> {
    let mut keys = Vec::new();
    let mut at = expression;
    loop {
        at = match at {
            Expr::Var(variable) => {
                keys.push(variable.id);
                keys.reverse();
                return Some(keys);
            }
            Expr::GetAttr(attribute) => {
                keys.push(attribute.name);
                &attribute.expr
            }
            Expr::GetItem(item) => {
                keys.push(constant_key(&item.subscript_expr)?);
                &item.expr
            }
            _ => return None,
        };
    }
}
