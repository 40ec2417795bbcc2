//! What an account is made of, and what is wrong with what somebody sends for one.

use crate::fields::Fields;

/// An email, as it was given and as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Email {
    pub(crate) text: String,
    /// In lower case.
    pub(crate) key: String,
}

impl Email {
    /// Reads one. Whether it exists is for the mail to find out; this only keeps out what cannot be one.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_good = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        let parts = text.rsplit_once('@').filter(|(_, host)| !host.contains('@'));
        match parts {
            Some((name, host)) if text.len() <= 254 && is_good(name) && is_good(host) => {
                Ok(Self { text: text.to_owned(), key: text.to_lowercase() })
            }
            _ => Err("must be an email such as ada@example.org".to_owned()),
        }
    }

    /// What stands before the `@`.
    pub(crate) fn local(&self) -> &str {
        self.text.rsplit_once('@').map_or("", |(name, _)| name)
    }
}

impl Fields {
    /// An email, which has to be there.
    pub(crate) fn email(&mut self, name: &'static str) -> Option<Email> {
        let Some(text) = self.string(name) else {
            self.missing(name);
            return None;
        };
        Email::read(&text).map_err(|fault| self.fault(name, fault)).ok()
    }

    /// A password that somebody chooses, which has to be there.
    pub(crate) fn new_password(&mut self, name: &'static str) -> Option<String> {
        let Some(text) = self.string(name) else {
            self.missing(name);
            return None;
        };
        if let Some(fault) = crate::auth::password::fault(&text) {
            self.fault(name, fault);
        }
        Some(text)
    }

    /// What people call somebody or something: 1 to 200 characters on one line.
    pub(crate) fn label(&mut self, name: &'static str) -> Option<String> {
        let text = self.string(name)?;
        let text = text.trim();
        if !(1..=200).contains(&text.chars().count()) || text.contains(char::is_control) {
            self.fault(name, "must have 1 to 200 characters, on one line");
        }
        Some(text.to_owned())
    }

    /// A role.
    pub(crate) fn role(&mut self, name: &'static str) -> Option<common::access::Role> {
        let text = self.string(name)?;
        let role = common::access::Role::ALL.into_iter().find(|role| role.name() == text);
        if role.is_none() {
            self.fault(name, "must be \"viewer\", \"operator\" or \"admin\"");
        }
        role
    }

    /// True or false.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        if !value.is_boolean() {
            self.fault(name, "must be true or false");
        }
        value.as_bool()
    }

    /// Notes that a field is missing, unless something is wrong with it already.
    pub(crate) fn missing(&mut self, name: &'static str) {
        if !self.is_faulty(name) {
            self.fault(name, "is missing");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_compared_without_case() {
        let email = Email::read(" Ada@Example.org ").expect("it is one");
        assert_eq!(
            (email.text.as_str(), email.key.as_str()),
            ("Ada@Example.org", "ada@example.org")
        );
        assert_eq!(email.local(), "Ada");
        for wrong in [
            "",
            "ada",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a@b@",
            "a\0@b",
            &format!("{}@b", "a".repeat(254)),
        ] {
            assert!(Email::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
