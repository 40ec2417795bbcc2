//! The leader's way to the broker: what is on its way, and what has been confirmed.
//!
//! The leader deletes confirmed rows over its own connection, so it does not use the outbox of the other processes.

mod flight;

use std::time::Instant;

use common::broker::{Hint, HintKind, Outgoing, Publisher, Status};
use common::outbox::Row;
use tokio::sync::mpsc;
use uuid::Uuid;

use flight::Flight;

/// A publisher, and what the leader knows of the rows that it gave to it.
pub struct Post {
    publisher: Publisher,
    confirms: mpsc::UnboundedReceiver<Vec<Uuid>>,
    flight: Flight,
    /// Rows that are confirmed, and still to be deleted.
    confirmed: Vec<Uuid>,
}

impl Post {
    /// Publishes over `publisher`, whose confirms come through `confirms`.
    pub fn new(publisher: Publisher, confirms: mpsc::UnboundedReceiver<Vec<Uuid>>) -> Self {
        Self { publisher, confirms, flight: Flight::default(), confirmed: Vec::new() }
    }

    /// Offers rows that were committed just now. What does not fit is found again when it is old enough.
    pub fn send(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.offer(row);
        }
    }

    /// Offers a row that was left over, unless it is on its way, or its lane takes nothing. Answers whether there was
    /// room.
    pub fn send_left(&mut self, row: Row) -> bool {
        if !self.flight.may_leave(row.id, &row.lane) {
            return true;
        }
        let is_offered = self.offer(row);
        if is_offered {
            metrics::counter!("gathering_outbox_leftovers_sent_total").increment(1);
        }
        is_offered
    }

    fn offer(&mut self, row: Row) -> bool {
        let (id, now) = (row.id, Instant::now());
        let is_offered = self.publisher.offer(Outgoing {
            lane: row.lane.clone(),
            job: row.job,
            committed_at: now,
        });
        if is_offered {
            self.flight.left(id, row.lane, now);
        }
        is_offered
    }

    /// How many more rows may be on their way.
    pub fn room(&mut self) -> usize {
        self.collect();
        self.flight.room()
    }

    /// Whether the broker takes messages.
    pub fn is_open(&self) -> bool {
        *self.publisher.status().borrow() == Status::Connected
    }

    /// Tells the fleet that runs changed.
    pub fn hint(&self, changed: Vec<Uuid>, stopping: Vec<Uuid>, ended: Vec<Uuid>) {
        let kinds = [HintKind::Changed, HintKind::Stopping, HintKind::Ended];
        let runs: Vec<(Uuid, HintKind)> = [changed, stopping, ended]
            .into_iter()
            .zip(kinds)
            .flat_map(|(runs, kind)| runs.into_iter().map(move |run| (run, kind)))
            .collect();
        if !runs.is_empty() {
            self.publisher.hint(Hint { runs });
        }
    }

    /// Up to `limit` rows that are to be deleted.
    pub fn confirmed(&mut self, limit: usize) -> &[Uuid] {
        self.collect();
        &self.confirmed[..self.confirmed.len().min(limit)]
    }

    /// Whether no row is on its way.
    pub fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Whether rows are still to be deleted.
    pub fn has_confirmed(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// The first `count` of them have been deleted.
    pub fn forget(&mut self, count: usize) {
        self.confirmed.drain(..count);
    }

    /// Deletes a row without publishing it.
    pub fn drop_row(&mut self, id: Uuid) {
        self.confirmed.push(id);
    }

    /// Forgets everything: a new leader finds again what is left.
    pub fn clear(&mut self) {
        self.collect();
        self.confirmed.clear();
        self.flight = Flight::default();
    }

    fn collect(&mut self) {
        while let Ok(ids) = self.confirms.try_recv() {
            for id in ids {
                self.flight.confirmed(id);
                self.confirmed.push(id);
            }
        }
        self.flight.give_up(Instant::now());
    }
}
