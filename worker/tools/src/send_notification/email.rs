//! `email`: a mail, by SMTP.
//!
//! Config: `smtp` ([`smtp`](super::smtp)), `from`, `to`, `cc`, `bcc` (an address or a list of them, such as
//! `a@example.com` or `Ann <a@example.com>`), `reply_to`, `subject`, `text`, `html`; one of the two at least. Output:
//! `{channel, message_id, recipients}`.
//!
//! The `Message-ID` is derived from the idempotency key: a mail that is sent again, because the server's answer was lost,
//! is the same mail to whoever looks at it.

use lettre::Message;
use lettre::message::{Mailbox, MessageBuilder, MultiPart, SinglePart};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::smtp;
use crate::guard::Guard;
use crate::input::Scalar;
use crate::{Context, Failure, Outcome};

/// How many recipients one mail has at the most.
const RECIPIENTS: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    smtp: smtp::Server,
    from: String,
    to: Addresses,
    #[serde(default)]
    cc: Addresses,
    #[serde(default)]
    bcc: Addresses,
    reply_to: Option<String>,
    subject: Scalar,
    text: Option<Scalar>,
    html: Option<String>,
}

/// One address or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Addresses {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Addresses {
    fn read(&self, field: &str) -> Result<Vec<Mailbox>, Failure> {
        let texts = match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts.as_slice(),
        };
        texts.iter().map(|text| address(field, text)).collect()
    }
}

fn address(field: &str, text: &str) -> Result<Mailbox, Failure> {
    text.trim().parse().map_err(|error| {
        Failure::permanent(format!(
            "`{field}` of send_notification, `{text}`, is no address: {error}"
        ))
    })
}

pub(super) async fn send(guard: &Guard, config: Config, context: &Context) -> Outcome {
    let from = address("from", &config.from)?;
    let id = message_id(&context.idempotency_key, from.email.domain());
    let recipients = [("to", &config.to), ("cc", &config.cc), ("bcc", &config.bcc)]
        .map(|(name, addresses)| addresses.read(name));
    let [to, cc, bcc] = recipients;
    let (to, cc, bcc) = (to?, cc?, bcc?);
    let count = to.len() + cc.len() + bcc.len();
    if to.is_empty() || count > RECIPIENTS {
        return Err(Failure::permanent(format!(
            "a mail has one address in `to` at least, and {RECIPIENTS} recipients at the most; this has {count}"
        )));
    }
    let mut builder = Message::builder().from(from).message_id(Some(id.clone()));
    builder = to.into_iter().fold(builder, MessageBuilder::to);
    builder = cc.into_iter().fold(builder, MessageBuilder::cc);
    builder = bcc.into_iter().fold(builder, MessageBuilder::bcc);
    if let Some(reply_to) = &config.reply_to {
        builder = builder.reply_to(address("reply_to", reply_to)?);
    }
    let message = body(builder.subject(config.subject.into_text()), config.text, config.html)?;
    smtp::deliver(guard, &config.smtp, &message, context).await?;
    Ok(json!({"channel": "email", "message_id": id, "recipients": count}))
}

fn body(
    builder: MessageBuilder,
    text: Option<Scalar>,
    html: Option<String>,
) -> Result<Message, Failure> {
    let text = text.map(Scalar::into_text);
    let built = match (text, html) {
        (Some(text), Some(html)) => {
            builder.multipart(MultiPart::alternative_plain_html(text, html))
        }
        (Some(text), None) => builder.singlepart(SinglePart::plain(text)),
        (None, Some(html)) => builder.singlepart(SinglePart::html(html)),
        (None, None) => {
            return Err(Failure::permanent("a mail has `text`, `html` or both; this has neither"));
        }
    };
    built.map_err(|error| Failure::permanent(format!("the mail cannot be written: {error}")))
}

/// The same for all attempts of a node, and for nobody else.
fn message_id(key: &str, domain: &str) -> String {
    let digest = Sha256::digest(key);
    let hex = digest[..16].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("<{hex}.gathering@{domain}>")
}
