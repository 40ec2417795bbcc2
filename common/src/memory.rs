//! The allocator of all processes.
//!
//! A stall (of the database, of the broker) fills a process with what waits, for a moment; glibc keeps much of that
//! memory ever after, and a little more with each longer stall. [jemalloc](https://jemalloc.net) gives it back: with two
//! arenas, and after a second, by `.cargo/config.toml`. The environment's `_RJEM_MALLOC_CONF` says otherwise.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
