//! The tools that actions ask for, as their users meet them.

mod catalogue;
mod commands;
mod logs;
mod notifications;
mod workspace;
