//! What a node run waits for without a worker, and the answer that ends it. Pure.
//!
//! A node run that begins to wait has a row in `waits`; who answers it locks the run, writes the answer, and has the
//! node run queued. The worker that claims it then goes on from the answer, and executes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::job::Reason;
use crate::remote::{Call, LARGEST_INPUT};

/// The most children that one node run may have.
pub const MOST_CHILDREN: usize = 10_000;
/// How many runs may stand above a run: a child's child's …
pub const DEEPEST: i64 = 10;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "wait_kind", rename_all = "snake_case")]
pub enum WaitKind {
    /// A person's decision.
    Approval,
    /// An event.
    Event,
    /// The end of a run that the node started.
    Child,
    /// The ends of the runs that the node started, one an item.
    Map,
    /// The answer of something that is no worker.
    Remote,
}

impl WaitKind {
    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Event => "event",
            Self::Child => "child",
            Self::Map => "map",
            Self::Remote => "remote",
        }
    }

    /// Whether it has runs below it.
    pub fn has_children(self) -> bool {
        matches!(self, Self::Child | Self::Map)
    }
}

/// What a node run begins to wait for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    /// What.
    pub kind: WaitKind,
    /// What the kind wants to know.
    pub spec: Value,
    /// The attempts that counted before: what is spent after that needs another answer.
    pub spent: i32,
    /// How long, from now on; then it is answered with [`Answer::Deadline`].
    pub deadline: Option<Duration>,
    /// The types of events that may answer it, as SQL's `like` reads them.
    pub listens: Option<String>,
    /// The runs that it starts.
    pub children: Option<Children>,
    /// The remote tool that it calls.
    pub call: Option<Call>,
}

impl Wait {
    /// Of a kind that starts nothing and hears nothing.
    pub fn new(kind: WaitKind, spec: Value, spent: i32, deadline: Option<Duration>) -> Self {
        Self { kind, spec, spent, deadline, listens: None, children: None, call: None }
    }

    /// About how many bytes of a statement it takes.
    pub fn weight(&self) -> usize {
        let children = |it: &Children| it.bytes + 100 * it.inputs.len();
        let call = if self.call.is_some() { LARGEST_INPUT } else { 0 };
        self.children.as_ref().map_or(0, children) + call
    }

    /// What is kept in the node run itself: enough to tell whether an answer is its own.
    pub fn mark(&self) -> Value {
        json!({"for": self.kind.name(), "spent": self.spent})
    }
}

/// Whether a node run that has `spent` so many attempts is resumed, by its mark: what it waited for is answered.
pub fn is_resumed(waiting: Option<&Value>, spent: i32) -> bool {
    waiting.is_some_and(|mark| {
        mark.get("for").is_some() && mark.get("spent") == Some(&Value::from(spent))
    })
}

/// Runs that a node run starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    /// What they have in common; the wait's spec.
    pub spec: ChildSpec,
    /// The input of each.
    pub inputs: Vec<Value>,
    /// How many bytes these have together, as JSON text.
    pub bytes: usize,
}

/// What the runs have in common that a node run starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildSpec {
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline.
    pub pipeline_id: Uuid,
    /// The version to which they are pinned.
    pub version: i32,
    /// Where they start.
    pub lane: String,
    /// How many runs stand above them.
    pub depth: i64,
    /// How many may be under way at a time.
    pub max_concurrency: i32,
    /// What the failure of one means to the others.
    pub on_item_failure: OnItemFailure,
}

/// What the failure of one child means to the others, and to the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnItemFailure {
    /// The node fails with it, and the others are stopped.
    #[default]
    Fail,
    /// The others go on, and the node's output says how each ended.
    Collect,
}

/// Where a run comes from that another has started; a part of its trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: Uuid,
    /// Its node.
    pub node: String,
    /// The place among the node's children.
    pub index: i32,
    /// How many runs stand above.
    pub depth: i64,
}

impl Parent {
    /// Out of what asked for a run.
    pub fn of(trigger: &Value) -> Option<Self> {
        trigger.get("parent").and_then(|parent| Deserialize::deserialize(parent).ok())
    }

    /// What asks for the child; `by` is what asked for the parent.
    pub fn trigger(&self, by: &Value) -> Value {
        let mut trigger = json!({"kind": "parent", "parent": self});
        // How many events have led to it, so that no loop of runs and events goes on for ever.
        if let Some(depth) = by.get("depth") {
            trigger["depth"] = depth.clone();
        }
        trigger
    }
}

/// What ends a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Answer {
    /// A person has decided.
    Decided {
        /// What.
        approved: bool,
        /// Who.
        by: String,
        /// Why.
        comment: Option<String>,
    },
    /// An event has come.
    EventCame {
        /// As expressions see it.
        event: Value,
    },
    /// The child has ended, or all have, or one has failed and the others do not matter any more. The rest is in
    /// their rows.
    ChildrenEnded,
    /// What is no worker has answered.
    Answered {
        /// What it said.
        value: Value,
    },
    /// The deadline came first.
    Deadline,
    /// The run was stopped.
    Stopped,
}

impl Answer {
    /// Why the node run is queued.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Decided { .. } => Reason::Decided,
            Self::EventCame { .. } => Reason::EventCame,
            Self::ChildrenEnded => Reason::ChildEnded,
            Self::Answered { .. } | Self::Stopped => Reason::Answered,
            Self::Deadline => Reason::Deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_the_try_that_waited_for_it() {
        let wait = Wait::new(WaitKind::Child, json!({}), 1, None);
        let mark = wait.mark();
        assert!(is_resumed(Some(&mark), 1));
        assert!(!is_resumed(Some(&mark), 2), "it failed since, and is tried again");
        assert!(!is_resumed(None, 0));
        assert!(!is_resumed(Some(&json!({"delay_ms": 5})), 0), "a delay waits for no answer");
    }

    #[test]
    fn a_child_knows_its_parent_from_its_trigger() {
        let parent = Parent { run: Uuid::nil(), node: "a".to_owned(), index: 3, depth: 2 };
        let trigger = parent.trigger(&json!({"kind": "schedule", "depth": 4}));
        assert_eq!(trigger["depth"], 4);
        assert_eq!(Parent::of(&trigger), Some(parent));
        assert_eq!(Parent::of(&json!({"kind": "api"})), None);
    }

    #[test]
    fn answers_are_read_back_as_they_were_written() {
        let decided = Answer::Decided { approved: true, by: "me".to_owned(), comment: None };
        for answer in [decided, Answer::ChildrenEnded, Answer::Deadline, Answer::Stopped] {
            let json = serde_json::to_value(&answer).expect("it is JSON");
            assert_eq!(serde_json::from_value::<Answer>(json).expect("it was an answer"), answer);
        }
    }
}
