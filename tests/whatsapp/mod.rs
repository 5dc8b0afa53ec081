//! WhatsApp's own wire: what Meta posts is stored item by item, in whatever order it comes.

mod aliases;
mod amendments;
mod arrivals;
mod batches;
mod echoes;
mod receipts;
mod told;
mod webhook;
mod witnesses;
