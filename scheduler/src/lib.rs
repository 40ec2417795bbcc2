//! The scheduler keeps time: all that happens because time has passed is its work. One leads, the others stand by.

mod agenda;
pub mod config;
pub mod duty;
pub mod leader;
pub mod post;

use std::time::{Duration, Instant};

use anyhow::Context;
use common::broker::Publisher;
use common::ops::{self, Check, Readiness};
use common::store::leader::Address;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, OpsAddr};
use crate::leader::Candidate;
use crate::post::Post;

/// Stands by and leads until `shutdown`.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let name = config.name();
    let database = config.database.resolve()?;
    let address = Address::parse(database.direct_url.reveal(), "gathering-scheduler")
        .context("DATABASE_DIRECT_URL")?;
    let (confirmed, confirms) = mpsc::unbounded_channel();
    // Ends after the leader, so that what was just committed still goes out.
    let publishing = CancellationToken::new();
    let broker = config.broker.resolve(&format!("gathering-scheduler {name}"))?;
    let (publisher, published) = Publisher::start(broker, confirmed, publishing.clone());
    let heard = watch::Sender::new(None);
    let readiness = Readiness::new(Some(heard_lately(heard.subscribe())), vec![publisher.status()]);
    let metrics = ops::metrics()?;
    let candidate = Candidate {
        address,
        name,
        post: Post::new(publisher, confirms),
        heard,
        duties: move || duty::all(config.retention, config.audit_retention),
    };
    let leading = candidate.run(shutdown);
    match config.ops_addr {
        OpsAddr::Off => leading.await,
        OpsAddr::At(addr) => {
            let router = ops::router(readiness.clone(), metrics);
            tokio::select! {
                () = leading => {}
                served = ops::serve(addr, router, CancellationToken::new()) => served?,
            }
        }
    }
    readiness.drain();
    publishing.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(6), published).await;
    Ok(())
}

/// The lock's own session tells whether the database answers: leaders and standbys ask it every second or two.
fn heard_lately(heard: watch::Receiver<Option<Instant>>) -> Check {
    const LATELY: Duration = Duration::from_secs(6);
    Box::new(move || {
        let heard = *heard.borrow();
        Box::pin(async move {
            match heard {
                None => Err("no answer yet".to_owned()),
                Some(at) if at.elapsed() > LATELY => {
                    Err(format!("no answer for {} s", at.elapsed().as_secs()))
                }
                Some(_) => Ok(()),
            }
        })
    })
}
