//! What a program has of its process: the environment, standard error, signals. The gateway and the mock provider share these files.

pub mod environment;
pub mod signal;
pub mod stderr;
