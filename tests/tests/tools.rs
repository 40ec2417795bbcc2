//! What actions do, and what is kept of it.

mod logs;
