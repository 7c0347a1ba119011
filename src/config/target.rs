//! What to serve: `MODULE[:EXPRESSION]`. Only the shape is checked here; Python looks the names up
//! and evaluates the arguments of a call, which are literals.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The application to import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Dotted name of the module to import.
    pub module: String,
    /// `obj`, `obj.attribute`, `factory()` or `factory("x", key=1)`; without one the module's
    /// `application` is served, else its `app`.
    pub expression: Option<String>,
}

/// The order in which a module's `application` and `app` are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DefaultNames {
    ApplicationFirst,
    /// As python-was does it.
    AppFirst,
}

impl DefaultNames {
    pub fn in_order(self) -> [&'static str; 2] {
        match self {
            DefaultNames::ApplicationFirst => ["application", "app"],
            DefaultNames::AppFirst => ["app", "application"],
        }
    }
}

impl Target {
    /// The two halves given apart; `module` may carry the expression when `expression` is `None`.
    pub fn new(module: &str, expression: Option<&str>) -> Result<Target, String> {
        let Some(expression) = expression else {
            return module.parse();
        };
        if module.contains(':') {
            return Err(format!(
                "{module:?} already names an expression, it cannot be {expression:?} as well"
            ));
        }
        check_module(module)?;
        check_expression(expression)?;
        Ok(Target {
            module: module.to_owned(),
            expression: Some(expression.to_owned()),
        })
    }

    /// The name of an app that was given none: the top package, in characters [`check_name`] takes.
    pub fn default_name(&self) -> String {
        let package = self.module.split('.').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii() { c } else { '_' };
        package.chars().take(NAME_LENGTH).map(plain).collect()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        match text.split_once(':') {
            None => {
                check_module(text)?;
                Ok(Target {
                    module: text.to_owned(),
                    expression: None,
                })
            }
            Some((module, expression)) => Target::new(module, Some(expression)),
        }
    }
}

/// For people: the arguments of a call may be secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expression {
            None => f.write_str(&self.module),
            Some(expression) => write!(f, "{}:{}", self.module, without_arguments(expression)),
        }
    }
}

/// A target or an expression that can be shown.
pub(super) fn without_arguments(target: &str) -> String {
    match target.split_once('(') {
        Some((_, ")")) | None => target.to_owned(),
        Some((callable, _)) => format!("{callable}(...)"),
    }
}

const NAME_LENGTH: usize = 64;

/// App names appear in process titles, file names and metric labels.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty()
        || name.len() > NAME_LENGTH
        || name.starts_with('.')
        || !name.chars().all(fits)
    {
        return Err(format!(
            "{name:?} is not an app name: 1 to {NAME_LENGTH} letters, digits, '-', '_' or '.', not starting with '.'"
        ));
    }
    Ok(())
}

fn check_module(module: &str) -> Result<(), String> {
    if module.is_empty() {
        return Err("the module is missing; example: myapp.wsgi:application".to_owned());
    }
    if module.contains('/') || module.ends_with(".py") {
        let stem = module.strip_suffix(".py").unwrap_or(module);
        let dotted = stem.trim_matches(['.', '/']).replace('/', ".");
        return Err(format!(
            "{module:?} is a file, not a module; did you mean {dotted:?}?"
        ));
    }
    if !module.split('.').all(is_identifier) {
        return Err(format!(
            "{module:?} is not the name of a module; example: myapp.wsgi:application"
        ));
    }
    Ok(())
}

fn check_expression(expression: &str) -> Result<(), String> {
    if expression.is_empty() {
        return Err(
            "the expression after ':' is missing; example: myapp.wsgi:application".to_owned(),
        );
    }
    let (name, call) = match expression.find('(') {
        None => (expression, None),
        Some(at) => (&expression[..at], Some(&expression[at..])),
    };
    let named = name.split('.').all(is_identifier);
    let called = call.is_none_or(is_one_call);
    if !named || !called || expression.chars().any(char::is_control) {
        return Err(format!(
            "{expression:?} is neither a name nor the call of one; examples: application, create_app(\"production\")"
        ));
    }
    Ok(())
}

/// Python takes more (and fewer) letters than Unicode calls alphabetic; the import has the last word.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_')
}

/// Whether the brackets of `(...)` and the quotes in it close, the first bracket last of all.
fn is_one_call(text: &str) -> bool {
    let mut open = Vec::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(end), _) => {
                if c == end {
                    quote = None;
                }
            }
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => open.push(')'),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ')' | ']' | '}') => {
                if open.pop() != Some(c) {
                    return false;
                }
                if open.is_empty() {
                    return chars.as_str().is_empty();
                }
            }
            (None, _) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(module: &str, expression: Option<&str>) -> Target {
        Target {
            module: module.to_owned(),
            expression: expression.map(str::to_owned),
        }
    }

    #[test]
    fn reads_a_module_with_and_without_an_expression() {
        for (text, module, expression) in [
            ("app", "app", None),
            ("myapp.wsgi", "myapp.wsgi", None),
            ("_a1.b2", "_a1.b2", None),
            ("größe:app", "größe", Some("app")),
            ("a:b", "a", Some("b")),
            ("a:b.c.d", "a", Some("b.c.d")),
            ("a:f()", "a", Some("f()")),
            ("a:f.g()", "a", Some("f.g()")),
            (
                "a:f(\"x:y\", 1, key='(')",
                "a",
                Some("f(\"x:y\", 1, key='(')"),
            ),
            ("a:f({'k': [1, (2,)]})", "a", Some("f({'k': [1, (2,)]})")),
            ("a:f('it\\'s')", "a", Some("f('it\\'s')")),
        ] {
            let parsed: Target = text.parse().unwrap();
            assert_eq!(parsed, target(module, expression), "{text}");
            assert_eq!(parsed.to_string(), without_arguments(text));
        }
    }

    #[test]
    fn an_empty_module_is_refused_with_an_example() {
        for text in ["", ":app"] {
            let reason = text.parse::<Target>().unwrap_err();
            assert!(reason.contains("example: myapp.wsgi"), "{reason}");
        }
    }

    #[test]
    fn rejects_what_is_not_a_module() {
        for text in [".", "a.", ".a", "a..b", "a b", "1a", "a-b", "a,b", "a\0"] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_gets_the_name_of_its_module_as_advice() {
        for (text, advice) in [
            ("hello.py", "\"hello\""),
            ("./my/wsgi.py:app", "\"my.wsgi\""),
        ] {
            let reason = text.parse::<Target>().unwrap_err();
            assert!(reason.contains(advice), "{reason}");
        }
    }

    #[test]
    fn rejects_what_is_neither_a_name_nor_a_call() {
        for text in [
            "a:", "a:b.", "a:.b", "a:1", "a:b c", "a:b+c", "a:f(", "a:f)", "a:f()()", "a:f().x",
            "a:f(\"x)", "a:f([)]", "a:f(1))", "a:(f)", "a:b;c", "a:b[0]", "a:f(\n)", "a:b:c",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn module_and_expression_may_be_given_apart() {
        assert_eq!(Target::new("a.b", Some("c")), Ok(target("a.b", Some("c"))));
        assert_eq!(Target::new("a.b:c", None), Ok(target("a.b", Some("c"))));
        assert!(Target::new("a.b:c", Some("d")).is_err());
    }

    #[test]
    fn the_default_name_is_the_top_package_and_a_valid_name() {
        for (module, name) in [
            ("mysite.wsgi", "mysite"),
            ("app", "app"),
            ("größe", "gr__e"),
        ] {
            assert_eq!(target(module, None).default_name(), name);
            assert_eq!(check_name(name), Ok(()));
        }
        let long = target(&"x".repeat(200), None).default_name();
        assert_eq!(check_name(&long), Ok(()));
    }

    #[test]
    fn names_that_would_confuse_a_path_or_a_label_are_refused() {
        for bad in ["", ".", "..", ".a", "a/b", "a b", "a\n", "é"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&"x".repeat(65)).is_err());
    }
}
