//! Keeps others from reading this process's memory, which holds secrets and customers' texts.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Turns off core dumps of this process and its children, and keeps other processes of this user
/// from reading its memory.
pub fn keep_private() -> std::io::Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
