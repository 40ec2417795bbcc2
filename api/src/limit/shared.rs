//! Counting with the other replicas, in Redis.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Count, Rate, Tier};

/// How long an answer is waited for; without one, the count is local.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a connection may take, and how long the next try waits.
const AGAIN: Duration = Duration::from_millis(500);

/// The generic cell rate algorithm, by the clock of Redis: one key holds when all is forgotten.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local burst = tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then full = now end
local after = full + interval
local earliest = after - interval * burst
if earliest > now then
  return {0, 0, math.ceil(full - now), math.ceil(earliest - now)}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return {1, math.floor((now - earliest) / interval), math.ceil(after - now), 0}
";

/// A handle to the connection.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    prefix: String,
    script: Script,
    connection: RwLock<Option<MultiplexedConnection>>,
    lost: Notify,
}

impl Shared {
    /// Connects, and connects again whenever the connection is lost, until `stopping`.
    pub(crate) fn start(client: Client, prefix: String, stopping: CancellationToken) -> Self {
        let script = Script::new(SCRIPT);
        let (connection, lost) = (RwLock::new(None), Notify::new());
        let shared = Self(Arc::new(Inner { prefix, script, connection, lost }));
        let keeper = shared.clone();
        tokio::spawn(async move { stopping.run_until_cancelled(keeper.keep(client)).await });
        shared
    }

    async fn keep(self, client: Client) {
        let mut is_said = false;
        loop {
            match connect(&client, &self.0.script).await {
                Ok(connection) => {
                    tracing::info!(
                        "requests are counted together with the other replicas, in Redis"
                    );
                    metrics::gauge!("gathering_rate_limit_shared").set(1.0);
                    self.set(Some(connection));
                    is_said = false;
                    self.0.lost.notified().await;
                }
                Err(error) if !is_said => {
                    is_said = true;
                    metrics::gauge!("gathering_rate_limit_shared").set(0.0);
                    tracing::warn!(%error, "Redis is away: each replica counts requests by itself");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn set(&self, connection: Option<MultiplexedConnection>) {
        *self.0.connection.write().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Counts one request; none when Redis does not answer.
    pub(super) async fn charge(&self, tier: Tier, who: &str, rate: Rate) -> Option<Count> {
        let connection = self.0.connection.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = connection?;
        let mut call = self.0.script.key(format!("{}:limit:{}:{who}", self.0.prefix, tier.name()));
        call.arg(u64::try_from(rate.interval().as_micros()).unwrap_or(u64::MAX).max(1));
        call.arg(rate.burst);
        let answer = call.invoke_async::<(u8, u32, u64, u64)>(&mut connection);
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let (is_taken, remaining, reset, wait) = match answer {
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return self.lose(&error.to_string()),
            Err(_) => return self.lose("no answer within 100 ms"),
        };
        let retry_after = (is_taken == 0).then(|| Duration::from_micros(wait));
        Some(Count { rate, remaining, reset: Duration::from_micros(reset), retry_after })
    }

    /// From here on the count is local, until there is another connection.
    fn lose(&self, error: &str) -> Option<Count> {
        let mut connection = self.0.connection.write().unwrap_or_else(PoisonError::into_inner);
        if connection.take().is_some() {
            metrics::gauge!("gathering_rate_limit_shared").set(0.0);
            tracing::warn!(error, "Redis is away: each replica counts requests by itself");
            self.0.lost.notify_one();
        }
        None
    }
}

/// A connection that knows the script, so that each count is one round trip.
async fn connect(client: &Client, script: &Script) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(AGAIN))
        .set_response_timeout(Some(AGAIN));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    script.prepare_invoke().load_async(&mut connection).await?;
    Ok(connection)
}
