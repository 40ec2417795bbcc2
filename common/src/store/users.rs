//! Accounts of people.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::Role;
use crate::clock::Instant;

/// An account, without its password.
#[derive(Debug, Clone)]
pub struct User {
    /// Stays, whatever else changes.
    pub id: Uuid,
    /// As it was given.
    pub email: String,
    /// What people call them.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when they cannot sign in.
    pub disabled_at: Option<Instant>,
    /// Who made the account.
    pub created_by: String,
    /// When.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
}

/// An account to be made.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// As it was given.
    pub email: &'a str,
    /// The same in lower case.
    pub email_key: &'a str,
    /// What people call them.
    pub name: &'a str,
    /// What they may do.
    pub role: Role,
    /// Argon2id, in the PHC form.
    pub password_hash: &'a str,
    /// Who makes it.
    pub by: &'a str,
}

/// What signing in asks about.
#[derive(Debug)]
pub struct Credentials {
    /// The account.
    pub id: Uuid,
    /// Argon2id, in the PHC form.
    pub password_hash: String,
    /// Whether it may not sign in.
    pub is_disabled: bool,
}

/// What to change of an account; what is none stays.
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// Another name.
    pub name: Option<&'a str>,
    /// Another role.
    pub role: Option<Role>,
    /// Disabled, or enabled again.
    pub disabled: Option<bool>,
    /// Another password's hash.
    pub password_hash: Option<&'a str>,
}

/// What came of a change.
#[derive(Debug)]
pub enum Changed {
    /// There is no such account.
    Unknown,
    /// It is the last admin that can sign in, and would be none any more.
    LastAdmin,
    /// As it was, and as it is.
    Done {
        /// The role before.
        role_before: Role,
        /// Whether it was disabled before.
        was_disabled: bool,
        /// The account now.
        user: User,
    },
}

/// Makes an account. The constraint `users_email_taken` refuses an address in use.
pub async fn create(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewUser<'_>,
) -> Result<User, sqlx::Error> {
    sqlx::query_as!(
        User,
        r#"insert into users (id, email, email_key, name, role, password_hash, created_by)
           values ($1, $2, $3, $4, $5, $6, $7)
           returning id, email, name, role as "role: Role", disabled_at, created_by, created_at, updated_at"#,
        id,
        new.email,
        new.email_key,
        new.name,
        new.role as Role,
        new.password_hash,
        new.by,
    )
    .fetch_one(conn)
    .await
}

/// Makes an account unless its address has one; whether it was made.
pub async fn ensure(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewUser<'_>,
) -> Result<bool, sqlx::Error> {
    let made = sqlx::query!(
        "insert into users (id, email, email_key, name, role, password_hash, created_by)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (email_key) do nothing",
        id,
        new.email,
        new.email_key,
        new.name,
        new.role as Role,
        new.password_hash,
        new.by,
    )
    .execute(conn)
    .await?;
    Ok(made.rows_affected() == 1)
}

/// Whether an address has an account.
pub async fn exists(conn: &mut PgConnection, email_key: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from users where email_key = $1) as "exists!""#,
        email_key
    )
    .fetch_one(conn)
    .await
}

/// What signing in with this address asks about.
pub async fn credentials(
    conn: &mut PgConnection,
    email_key: &str,
) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as!(
        Credentials,
        r#"select id, password_hash, disabled_at is not null as "is_disabled!" from users where email_key = $1"#,
        email_key
    )
    .fetch_optional(conn)
    .await
}

/// What changing one's own password asks about.
pub async fn own_credentials(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as!(
        Credentials,
        r#"select id, password_hash, disabled_at is not null as "is_disabled!" from users where id = $1"#,
        id
    )
    .fetch_optional(conn)
    .await
}

/// One account.
pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as!(
        User,
        r#"select id, email, name, role as "role: Role", disabled_at, created_by, created_at, updated_at
           from users where id = $1"#,
        id
    )
    .fetch_optional(conn)
    .await
}

/// A page of the accounts, newest first.
pub async fn list(
    conn: &mut PgConnection,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<User>, sqlx::Error> {
    sqlx::query_as!(
        User,
        r#"select id, email, name, role as "role: Role", disabled_at, created_by, created_at, updated_at
           from users where $1::uuid is null or id < $1 order by id desc limit $2"#,
        before,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Changes an account, within the caller's transaction.
pub async fn change(
    conn: &mut PgConnection,
    id: Uuid,
    change: &Change<'_>,
) -> Result<Changed, sqlx::Error> {
    // One change at a time, so that two admins cannot demote each other.
    sqlx::query!("select pg_advisory_xact_lock(hashtext('gathering.users'))")
        .execute(&mut *conn)
        .await?;
    let Some(before) = find(conn, id).await? else { return Ok(Changed::Unknown) };
    let demotes = change.role.is_some_and(|role| role != Role::Admin);
    let disables = change.disabled == Some(true);
    let is_admin = before.role == Role::Admin && before.disabled_at.is_none();
    if is_admin && (demotes || disables) && !has_admin_but(conn, id).await? {
        return Ok(Changed::LastAdmin);
    }
    let user = sqlx::query_as!(
        User,
        r#"update users set name = coalesce($2, name), role = coalesce($3, role),
               disabled_at = case when $4::bool is null then disabled_at
                                  when $4 then coalesce(disabled_at, clock_timestamp()) end,
               password_hash = coalesce($5, password_hash), updated_at = clock_timestamp()
           where id = $1
           returning id, email, name, role as "role: Role", disabled_at, created_by, created_at, updated_at"#,
        id,
        change.name,
        change.role as Option<Role>,
        change.disabled,
        change.password_hash,
    )
    .fetch_one(conn)
    .await?;
    Ok(Changed::Done { role_before: before.role, was_disabled: before.disabled_at.is_some(), user })
}

async fn has_admin_but(conn: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
               select from users where role = 'admin' and disabled_at is null and id <> $1
           ) as "exists!""#,
        id
    )
    .fetch_one(conn)
    .await
}
