//! The sandbox: one environment without loader, files or network, with fuel.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

/// Fuel of one expression among few: about a million instructions, or 64 MB of data.
const FUEL: u64 = 1_000_000;
/// How many count as few.
const FEW: usize = 10;
/// Fuel of one expression among many, so that all of them together stay bounded.
const FUEL_AMONG_MANY: u64 = 50_000;

/// How many expressions and texts a template may hold.
pub(super) const MOST: usize = 1_000;

static ALONE: LazyLock<Environment<'static>> = LazyLock::new(|| sandbox(FUEL));
static AMONG_MANY: LazyLock<Environment<'static>> = LazyLock::new(|| sandbox(FUEL_AMONG_MANY));

/// The environment for one of `siblings` expressions that are evaluated together.
pub(super) fn environment(siblings: usize) -> &'static Environment<'static> {
    if siblings <= FEW { &ALONE } else { &AMONG_MANY }
}

fn sandbox(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    // It prints the whole context.
    environment.remove_global("debug");
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(100);
    // So that errors name what is undefined. They carry values as well, which `sentence` leaves out.
    environment.set_debug(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_syntax(syntax());
    environment
}

/// Plain Jinja, except that a text's last line break is part of it.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .expect("the default delimiters are valid")
}

/// Whether the sandbox has this function.
pub(super) fn has_function(name: &str) -> bool {
    ALONE.globals().any(|(global, _)| global == name)
}

/// Whether the sandbox has this filter.
pub(super) fn has_filter(name: &str) -> bool {
    static IS_FILTER: LazyLock<minijinja::Expression<'static, 'static>> =
        LazyLock::new(|| ALONE.compile_expression("name is filter").expect("it is valid"));
    has(&IS_FILTER, name)
}

/// Whether the sandbox has this test.
pub(super) fn has_test(name: &str) -> bool {
    static IS_TEST: LazyLock<minijinja::Expression<'static, 'static>> =
        LazyLock::new(|| ALONE.compile_expression("name is test").expect("it is valid"));
    has(&IS_TEST, name)
}

fn has(question: &minijinja::Expression<'static, 'static>, name: &str) -> bool {
    question.eval(minijinja::context! { name }).is_ok_and(|answer| answer.is_true())
}

/// What went wrong, in words of ours.
pub(super) fn sentence(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::OutOfFuel => {
            "it takes too many steps or builds too much data; do this in a node".to_owned()
        }
        ErrorKind::UndefinedError if detail.is_empty() => "a name in it is undefined".to_owned(),
        ErrorKind::UndefinedError => detail.to_owned(),
        ErrorKind::SyntaxError => match error.line() {
            Some(line) if line > 1 => format!("it does not parse: {detail} (line {line})"),
            _ => format!("it does not parse: {detail}"),
        },
        kind if detail.is_empty() => kind.to_string(),
        kind => format!("{kind}: {detail}"),
    }
}
