//! The commands beside `serve` and `worker`.

mod command_line;
mod forget;
mod manners;
mod retry;
mod seed;
mod simulate;
