//! A program that executes a remote tool, under the test's hand.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use serde_json::{Value, json};

/// A program that takes one tool's calls. At drop it is gone, and what it has not acked goes back.
#[derive(Debug)]
pub struct Program {
    connection: Connection,
    channel: Channel,
    calls: lapin::Consumer,
}

/// A call that it has taken.
#[derive(Debug)]
pub struct Call {
    /// The message's body.
    pub body: Value,
    /// Its properties.
    pub properties: BasicProperties,
    /// Whether it was delivered before.
    pub redelivered: bool,
    delivery: Delivery,
    channel: Channel,
}

impl Program {
    pub(crate) async fn start(connection: Connection, queue: &str) -> Self {
        let channel = connection.create_channel().await.expect("a sound connection opens channels");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        channel.basic_qos(10, BasicQosOptions::default()).await.expect("a prefetch");
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let calls = channel
            .basic_consume(queue.into(), "program".into(), options, arguments)
            .await
            .expect("the tool's queue is there");
        Self { connection, channel, calls }
    }

    /// The next call.
    pub async fn take(&mut self) -> Call {
        let next = tokio::time::timeout(Duration::from_secs(30), self.calls.next()).await;
        let delivery = next.expect("a call comes").expect("the consumer lives").expect("a call");
        Call {
            body: serde_json::from_slice(&delivery.data).expect("a call is JSON"),
            properties: delivery.properties.clone(),
            redelivered: delivery.redelivered,
            delivery,
            channel: self.channel.clone(),
        }
    }

    /// Dies.
    pub async fn die(self) {
        self.connection.close(200, "killed".into()).await.expect("a sound connection closes");
    }
}

impl Call {
    /// Its correlation id.
    pub fn id(&self) -> String {
        self.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Replies, and waits until the broker has it; the call stays open.
    pub async fn reply(&self, said: &Value) {
        self.reply_as(&self.id(), said.to_string().as_bytes()).await;
    }

    /// Replies with anything.
    pub async fn reply_as(&self, correlation_id: &str, body: &[u8]) {
        let to = self.properties.reply_to().clone().expect("a call says where replies go");
        let properties = BasicProperties::default().with_correlation_id(correlation_id.into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let published = self.channel.basic_publish("".into(), to, options, body, properties).await;
        let confirmed = published.expect("it is published").await.expect("a confirm comes");
        assert!(confirmed.take_message().is_none(), "the reply found its queue");
    }

    /// Acks the call.
    pub async fn ack(self) {
        self.delivery.ack(BasicAckOptions::default()).await.expect("it is acked");
    }

    /// Replies with an output, and acks.
    pub async fn answer(self, output: Value) {
        self.reply(&json!({"output": output})).await;
        self.ack().await;
    }

    /// Replies with an error, and acks.
    pub async fn refuse(self, error: Value) {
        self.reply(&json!({"error": error})).await;
        self.ack().await;
    }
}
