//! A walk over a syntax tree: collects what it reads, and what it must not.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{CallArg, Expr, Stmt};

use super::path::keys;
use crate::expression::needs::Needs;
use crate::expression::{Names, engine};
use crate::secret;

/// The names that the scope of a run has.
const SCOPE: [&str; 5] = ["input", "nodes", "output", "run", "secrets"];
/// The names that the scope of a fire has.
pub(in crate::expression) const FIRE: [&str; 4] = ["schedule", "fire_at", "event", "data"];

/// What was found so far.
pub(super) struct Walk<'a> {
    names: Names,
    needs: Needs,
    /// Names that the text itself gives (`{% set %}`, `{% for %}`).
    locals: BTreeSet<&'a str>,
    errors: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(names: Names) -> Self {
        Self { names, needs: Needs::default(), locals: BTreeSet::new(), errors: Vec::new() }
    }

    /// What is needed, or the first thing that is wrong.
    pub(super) fn finish(self) -> Result<Needs, String> {
        self.errors.into_iter().next().map_or(Ok(self.needs), Err)
    }

    fn refuse(&mut self, message: impl Into<String>) {
        self.errors.push(message.into());
    }

    /// A name with the constant keys behind it.
    fn name(&mut self, keys: &[&str]) {
        match keys {
            [local, ..] if self.locals.contains(local) => {}
            [name, ..] if self.names == Names::Event => {
                if ["event", "data"].contains(name) {
                    self.needs.add(keys.iter().copied());
                } else {
                    self.refuse(format!(
                        "`{name}` is not defined; there are `event` and its `data` (a text is put in quotes)"
                    ));
                }
            }
            ["item" | "index", ..] if self.names == Names::Item => {
                self.needs.add(keys.iter().copied());
            }
            [name, ..] if self.names == Names::Fire => {
                if FIRE.contains(name) {
                    self.needs.add(keys.iter().copied());
                } else {
                    self.refuse(format!(
                        "`{name}` is not defined; there are `schedule`, `fire_at`, `event` and its `data` (a text is \
                         put in quotes)"
                    ));
                }
            }
            ["nodes", _, "output", ..] | ["input" | "run" | "output", ..] => {
                self.needs.add(keys.iter().copied());
            }
            ["nodes", id, ..] => self.refuse(format!(
                "of a node only its output can be read: `nodes[{id:?}].output` (an id with `-` or `.` in it is \
                 put in quotes and brackets)"
            )),
            ["nodes"] => self.refuse(
                "`nodes` must be followed by a constant: `nodes.a.output` or `nodes[\"my-id\"].output`",
            ),
            ["secrets", name, ..] if secret::is_name(name) => self.needs.add(["secrets", *name]),
            ["secrets", ..] => self.refuse(
                "`secrets` must be followed by a name: `secrets.TOKEN`, of letters, digits and `_`",
            ),
            [name, ..] => self.refuse(format!(
                "`{name}` is not defined; there are `input`, `nodes.<id>.output`, `run`, in the config of an \
                 action `secrets.<name>`, and in the condition of an edge `output` (a text is put in quotes)"
            )),
            [] => {}
        }
    }

    pub(super) fn expression(&mut self, expression: &Expr<'a>) {
        if let Some(keys) = keys(expression) {
            return self.name(&keys);
        }
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                self.optional(&slice.start);
                self.optional(&slice.stop);
                self.optional(&slice.step);
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                self.expression(&operation.left);
                self.expression(&operation.right);
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr);
                comparison.ops.iter().for_each(|operation| self.expression(&operation.expr));
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr);
                self.expression(&choice.true_expr);
                self.optional(&choice.false_expr);
            }
            Expr::Filter(filter) => {
                self.filter(filter.name);
                self.optional(&filter.expr);
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                if !engine::has_test(test.name) {
                    self.refuse(format!("there is no test `{}`", test.name));
                }
                self.expression(&test.expr);
                self.arguments(&test.args);
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr),
            Expr::GetItem(item) => {
                self.expression(&item.expr);
                self.expression(&item.subscript_expr);
            }
            Expr::Call(call) => self.call(&call.expr, &call.args),
            Expr::List(list) => list.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map.keys.iter().chain(&map.values).for_each(|e| self.expression(e)),
        }
    }

    fn optional(&mut self, expression: &Option<Expr<'a>>) {
        if let Some(expression) = expression {
            self.expression(expression);
        }
    }

    fn filter(&mut self, name: &str) {
        if !engine::has_filter(name) {
            self.refuse(format!("there is no filter `{name}`"));
        }
    }

    fn call(&mut self, callee: &Expr<'a>, arguments: &[CallArg<'a>]) {
        match callee {
            Expr::Var(function) if self.locals.contains(function.id) => {}
            Expr::Var(function) if engine::has_function(function.id) => {}
            Expr::Var(function) => self.refuse(format!("there is no function `{}`", function.id)),
            Expr::GetAttr(method) => self.expression(&method.expr),
            other => self.expression(other),
        }
        self.arguments(arguments);
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(expression)
                | CallArg::Kwarg(_, expression)
                | CallArg::PosSplat(expression)
                | CallArg::KwargSplat(expression) => self.expression(expression),
            }
        }
    }

    /// What a `{% set %}` or `{% for %}` gives a name to.
    fn assign(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(variable)
                if SCOPE.contains(&variable.id)
                    || FIRE.contains(&variable.id) && self.names == Names::Fire =>
            {
                self.refuse(format!("`{}` cannot be given another value", variable.id));
            }
            Expr::Var(variable) => {
                self.locals.insert(variable.id);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.assign(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.assign(item)),
            other => self.expression(other),
        }
    }

    fn statements(&mut self, statements: &[Stmt<'a>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    pub(super) fn statement(&mut self, statement: &Stmt<'a>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emitted) => self.expression(&emitted.expr),
            Stmt::EmitRaw(_) => {}
            Stmt::ForLoop(each) => {
                self.expression(&each.iter);
                self.assign(&each.target);
                self.locals.insert("loop");
                self.optional(&each.filter_expr);
                self.statements(&each.body);
                self.statements(&each.else_body);
            }
            Stmt::IfCond(choice) => {
                self.expression(&choice.expr);
                self.statements(&choice.true_body);
                self.statements(&choice.false_body);
            }
            Stmt::WithBlock(with) => {
                for (target, expression) in &with.assignments {
                    self.expression(expression);
                    self.assign(target);
                }
                self.statements(&with.body);
            }
            Stmt::Set(set) => {
                self.expression(&set.expr);
                self.assign(&set.target);
            }
            Stmt::SetBlock(set) => {
                self.optional(&set.filter);
                self.statements(&set.body);
                self.assign(&set.target);
            }
            Stmt::AutoEscape(block) => {
                self.expression(&block.enabled);
                self.statements(&block.body);
            }
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter);
                self.statements(&block.body);
            }
            Stmt::Do(call) => self.call(&call.call.expr, &call.call.args),
        }
    }
}
