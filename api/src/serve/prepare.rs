//! What has to be in the database before this replica is ready: the schema, the first admin, and secrets under the key
//! of the moment.

use common::access::Role;
use common::store::{self, secrets, users};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::App;
use crate::config::FirstAdmin;

/// Waits for the schema, and says so in the log; then prepares the rest, through outages.
pub(super) async fn prepare(
    app: App,
    first_admin: Option<FirstAdmin>,
    prepared: CancellationToken,
    stopping: CancellationToken,
) {
    let preparing = async {
        store::wait_until_migrated(&app.pool).await;
        let mut reconnect = common::retry::Reconnect::new();
        while let Err(error) = attempt(&app, first_admin.as_ref()).await {
            tracing::warn!(%error, "the first admin and the secrets could not be seen to yet");
            tokio::time::sleep(reconnect.wait()).await;
        }
        prepared.cancel();
    };
    stopping.run_until_cancelled(preparing).await;
}

async fn attempt(app: &App, first_admin: Option<&FirstAdmin>) -> anyhow::Result<()> {
    if let Some(admin) = first_admin {
        make_admin(app, admin).await?;
    }
    seal_anew(app).await
}

/// Stored like any user; one that is there stays as it is.
async fn make_admin(app: &App, admin: &FirstAdmin) -> anyhow::Result<()> {
    let mut conn = app.pool.acquire().await?;
    if users::exists(&mut conn, &admin.email.key).await? {
        return Ok(());
    }
    drop(conn);
    let hash = app.passwords.hash(admin.password.reveal().to_owned()).await;
    let hash = hash.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let new = users::NewUser {
        email: &admin.email.text,
        email_key: &admin.email.key,
        name: admin.email.local(),
        role: Role::Admin,
        password_hash: &hash,
        by: "environment",
    };
    let mut conn = app.pool.acquire().await?;
    if users::ensure(&mut conn, Uuid::now_v7(), &new).await? {
        tracing::info!(email = admin.email.text, "the first admin was made");
    }
    Ok(())
}

/// What a former key sealed is sealed with the first one, so that the former can be taken off the list.
async fn seal_anew(app: &App) -> anyhow::Result<()> {
    let Some(keys) = &app.secrets else { return Ok(()) };
    let mut conn = app.pool.acquire().await?;
    for before in secrets::sealed_otherwise(&mut conn, keys.sealing()).await? {
        let after = keys.open(&before).and_then(|value| keys.seal(&before.name, &value));
        match after {
            Ok(after) => {
                secrets::reseal(&mut conn, &before, &after).await?;
                tracing::info!(name = before.name, "a secret was sealed anew");
            }
            Err(error) => tracing::warn!(error, "a secret could not be sealed anew"),
        }
    }
    Ok(())
}
