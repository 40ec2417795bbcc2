//! What the database says about those who send tokens and keys, never older than a second.
//!
//! What was asked is kept in a bounded LRU. An answer is used for [`GOOD`], counted from before it was asked for, and
//! is asked for again in the background once it is [`OLD`], so that who sends many requests waits for none of them.
//! Questions that come up while others are under way are asked together. So a revocation counts on every replica
//! within a second, and when the database cannot be asked, nobody is let in on an older answer.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::access::Role;
use common::batch::{Batcher, Work};
use common::store::principals::{self, KeyStanding, UserStanding};
use common::store::{self, Pool, api_keys};
use lru::LruCache;
use uuid::Uuid;

use crate::error::ApiError;

/// How long an answer is used.
const GOOD: Duration = Duration::from_millis(900);
/// From when on it is asked for again, ahead of need.
const OLD: Duration = Duration::from_millis(400);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many answers are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// Whom a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Whom {
    /// The bearer of an access token; without a user, it is an operator's.
    Token { jti: Uuid, user: Option<Uuid> },
    /// The bearer of the key with this prefix.
    Key(String),
}

/// How they stand.
#[derive(Debug, Clone)]
pub(crate) enum Standing {
    /// Unknown, revoked, expired or disabled.
    Refused,
    /// A user, with the role of the moment.
    User(Role),
    /// An operator's token that was not revoked.
    Operator,
    /// A key, whose secret is yet to be compared.
    Key(KeyStanding),
}

struct Kept {
    standing: Standing,
    asked_at: Instant,
    is_asked_again: bool,
    /// Whether a use of it was noted since it was asked for.
    is_noted: bool,
}

/// A handle to what is known.
#[derive(Clone)]
pub(crate) struct Principals {
    kept: Arc<Mutex<LruCache<Whom, Kept>>>,
    questions: Batcher<Whom, Standing>,
    uses: Batcher<String, ()>,
}

impl Principals {
    pub(crate) fn start(pool: Pool) -> Self {
        Self {
            kept: Arc::new(Mutex::new(LruCache::new(KEPT))),
            questions: Batcher::start("principals", 256, Asking(pool.clone())),
            uses: Batcher::start("key_uses", 256, Noting(pool)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Whom, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How they stand now, or stood less than a second ago.
    pub(crate) async fn standing(&self, whom: Whom) -> Result<Standing, ApiError> {
        if let Some(standing) = self.known(&whom) {
            return Ok(standing);
        }
        self.ask(whom).await
    }

    fn known(&self, whom: &Whom) -> Option<Standing> {
        let mut kept = self.lock();
        let known = kept.get_mut(whom)?;
        let age = known.asked_at.elapsed();
        if age >= GOOD {
            return None;
        }
        let standing = known.standing.clone();
        if age >= OLD && !known.is_asked_again {
            known.is_asked_again = true;
            drop(kept);
            let (again, whom) = (self.clone(), whom.clone());
            tokio::spawn(async move { drop(again.ask(whom).await) });
        }
        Some(standing)
    }

    async fn ask(&self, whom: Whom) -> Result<Standing, ApiError> {
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, self.questions.submit(whom.clone())).await;
        let away = "Whether you may do this cannot be looked up now; try again.";
        let standing = answer.map_err(|_| ApiError::unavailable(away))?.map_err(ApiError::from)?;
        let kept =
            Kept { standing: standing.clone(), asked_at, is_asked_again: false, is_noted: false };
        self.lock().put(whom, kept);
        Ok(standing)
    }

    /// Notes that a key was used, once for each time that it was asked about.
    pub(crate) fn note_use(&self, prefix: &str) {
        let whom = Whom::Key(prefix.to_owned());
        match self.lock().get_mut(&whom) {
            Some(kept) if !kept.is_noted => kept.is_noted = true,
            _ => return,
        }
        let (uses, prefix) = (self.uses.clone(), prefix.to_owned());
        tokio::spawn(async move {
            if let Err(error) = uses.submit(prefix).await {
                tracing::warn!(%error, "the use of a key could not be noted");
            }
        });
    }

    /// Forgets everything: this replica itself has just changed what somebody may do.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }
}

struct Asking(Pool);

impl Work for Asking {
    type Item = Whom;
    type Answer = Standing;
    const RETRY_OUTAGES: bool = false;

    async fn commit(&mut self, asked: &[Whom]) -> Result<Vec<Standing>, store::Error> {
        let (mut jtis, mut ids, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        for whom in asked {
            match whom {
                Whom::Token { jti, user } => {
                    jtis.push(*jti);
                    ids.extend(*user);
                }
                Whom::Key(prefix) => prefixes.push(prefix.clone()),
            }
        }
        let mut conn = self.0.acquire().await?;
        let looking = look(&mut conn, &jtis, &ids, &prefixes);
        let (revoked, users, keys) = match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found?,
            Err(_) => {
                // Whoever takes it next would wait for this answer first.
                drop(conn.detach());
                return Err(store::Error::PoolTimedOut);
            }
        };
        let stand = |whom: &Whom| match whom {
            Whom::Token { jti, .. } if revoked.contains(jti) => Standing::Refused,
            Whom::Token { user: None, .. } => Standing::Operator,
            Whom::Token { user: Some(id), .. } => match users.get(id) {
                Some(user) if !user.is_disabled => Standing::User(user.role),
                _ => Standing::Refused,
            },
            Whom::Key(prefix) => match keys.get(prefix) {
                Some(key) if key.is_good => Standing::Key(key.clone()),
                _ => Standing::Refused,
            },
        };
        Ok(asked.iter().map(stand).collect())
    }
}

type Found = (HashSet<Uuid>, HashMap<Uuid, UserStanding>, HashMap<String, KeyStanding>);

/// One look at each table that is asked about.
async fn look(
    conn: &mut store::Connection,
    jtis: &[Uuid],
    ids: &[Uuid],
    prefixes: &[String],
) -> Result<Found, store::Error> {
    let (mut revoked, mut users, mut keys) = Found::default();
    if !jtis.is_empty() {
        revoked = principals::revoked(conn, jtis).await?;
    }
    if !ids.is_empty() {
        let found = principals::users(conn, ids).await?;
        users = found.into_iter().map(|user| (user.id, user)).collect();
    }
    if !prefixes.is_empty() {
        let found = principals::keys(conn, prefixes).await?;
        keys = found.into_iter().map(|key| (key.prefix.clone(), key)).collect();
    }
    Ok((revoked, users, keys))
}

struct Noting(Pool);

impl Work for Noting {
    type Item = String;
    type Answer = ();
    const RETRY_OUTAGES: bool = false;

    async fn commit(&mut self, prefixes: &[String]) -> Result<Vec<()>, store::Error> {
        let mut conn = self.0.acquire().await?;
        api_keys::used(&mut conn, prefixes).await?;
        Ok(vec![(); prefixes.len()])
    }
}
