//! What a program gets from its process: environment, memory, standard error, signals. The gateway
//! and the mock provider share these files.

pub mod environment;
pub mod hidden;
pub mod memory;
pub mod signal;
pub mod stderr;
