//! The commands beside `serve` and `worker`.

mod command_line;
mod doubts;
mod forget;
mod manners;
mod retry;
mod seed;
mod simulate;
