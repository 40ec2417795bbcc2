//! What an expression says, read from its syntax tree before it is ever evaluated.
//!
//! The tree is the engine's own (`unstable_machinery`), so that what is checked here is what runs.

mod path;
mod walk;

use minijinja::machinery::ast::{Expr, Stmt};
use minijinja::machinery::{Token, parse, parse_expr, tokenize};

pub(super) use self::path::Path;
pub(super) use self::walk::FIRE;
use self::walk::Walk;
use super::needs::Needs;
use super::{Names, engine};

/// How many tokens one `{{ … }}` or `{% … %}` may have. The parser and the compiler recurse over them, and are to
/// stay within a thread's stack.
const MOST_TOKENS: usize = 300;
/// How many `{% … %}` one text may have, for the same reason.
const MOST_TAGS: usize = 300;

/// What was learnt of an expression or a text.
pub(super) struct Reading {
    /// What it reads.
    pub(super) needs: Needs,
    /// Set if it is nothing but a name.
    pub(super) path: Option<Path>,
}

/// Reads an expression.
pub(super) fn read_expression(source: &str, names: Names) -> Result<Reading, String> {
    if source.trim().is_empty() {
        return Err("it is empty; write an expression, or leave it out".to_owned());
    }
    bounded(source, true)?;
    let tree = parse_expr(source).map_err(|error| engine::sentence(&error))?;
    let mut walk = Walk::new(names);
    walk.expression(&tree);
    let needs = walk.finish()?;
    Ok(Reading { needs, path: Path::of(&tree) })
}

/// A string with template marks in it.
pub(super) enum Text<'a> {
    /// One whole `{{ expression }}`: the expression.
    Whole(&'a str),
    /// Text with marks in it.
    Mixed(Needs),
}

/// Reads a string with template marks in it.
pub(super) fn read_text(source: &str, names: Names) -> Result<Text<'_>, String> {
    bounded(source, false)?;
    let tree = parse(source, "text", engine::syntax()).map_err(|error| engine::sentence(&error))?;
    if let Stmt::Template(template) = &tree
        && let [Stmt::EmitExpr(_)] = template.children.as_slice()
        && let Some(inner) = source.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"))
    {
        let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
        return Ok(Text::Whole(inner.strip_suffix('-').unwrap_or(inner)));
    }
    let mut walk = Walk::new(names);
    walk.statement(&tree);
    walk.finish().map(Text::Mixed)
}

/// Refuses what is too long before anything recurses over it.
fn bounded(source: &str, is_expression: bool) -> Result<(), String> {
    let mut tokens = 0;
    let mut tags = 0;
    for token in tokenize(source, is_expression, engine::syntax()) {
        match token.map_err(|error| engine::sentence(&error))?.0 {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => tokens = 0,
            Token::BlockStart => tags += 1,
            _ => tokens += 1,
        }
        if tokens > MOST_TOKENS {
            return Err(format!(
                "an expression in it has over {MOST_TOKENS} tokens; split it over several nodes"
            ));
        }
        if tags > MOST_TAGS {
            return Err(format!("it has over {MOST_TAGS} tags; split it over several nodes"));
        }
    }
    Ok(())
}

/// A constant key of an expression.
fn constant_key<'a>(subscript: &'a Expr<'_>) -> Option<&'a str> {
    match subscript {
        Expr::Const(constant) => constant.value.as_str(),
        _ => None,
    }
}
