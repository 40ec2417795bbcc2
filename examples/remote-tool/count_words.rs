//! The same remote tool as `count_words.py`, in Rust. It wants AMQP_URL, and GATHERING_PREFIX if that is not `gathering`.
#![allow(
    clippy::disallowed_methods,
    reason = "it is no part of GatheRing, and reads its environment itself"
)]

use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, message::Delivery};
use serde_json::{Value, json};

/// The output, or the error that says whether another attempt may succeed.
fn count_words(call: &Value) -> Result<Value, Value> {
    let input = &call["input"];
    if input["unlucky"] == true && call["attempt"] == 1 {
        let message = "the first attempt of the unlucky fails";
        return Err(json!({"kind": "retryable", "message": message, "retry_after": "100ms"}));
    }
    let words: Vec<&str> = input["text"].as_str().unwrap_or_default().split_whitespace().collect();
    let longest = words.iter().rev().max_by_key(|word| word.chars().count());
    match longest {
        Some(longest) => Ok(json!({"words": words.len(), "longest": longest})),
        None => Err(json!({"kind": "permanent", "message": "the text has no words"})),
    }
}

async fn answer(channel: &Channel, delivery: Delivery) -> Result<(), Box<dyn std::error::Error>> {
    let call: Value = serde_json::from_slice(&delivery.data)?;
    let reply = match count_words(&call) {
        Ok(output) => json!({"output": output}),
        Err(error) => json!({"error": error}),
    };
    let about = BasicProperties::default()
        .with_correlation_id(delivery.properties.correlation_id().clone().unwrap_or_default())
        .with_content_type("application/json".into())
        .with_delivery_mode(2);
    let to = delivery.properties.reply_to().clone().unwrap_or_default();
    let body = serde_json::to_vec(&reply)?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm = channel.basic_publish("".into(), to, options, &body, about).await?.await?;
    // Only what the broker has is acked: whoever dies before that loses nothing.
    if !confirm.is_ack() || confirm.take_message().is_some() {
        return Err("the broker did not take the reply".into());
    }
    delivery.ack(Default::default()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prefix = std::env::var("GATHERING_PREFIX").unwrap_or_else(|_| "gathering".to_owned());
    let properties = ConnectionProperties::default().with_connection_name("count-words".into());
    let connection = Connection::connect(&std::env::var("AMQP_URL")?, properties).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // How many calls it works on at a time.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let queue = format!("{prefix}.tool.count-words");
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut calls =
        channel.basic_consume(queue.into(), "count-words".into(), options, arguments).await?;
    while let Some(delivery) = calls.next().await {
        answer(&channel, delivery?).await?;
    }
    Ok(())
}
