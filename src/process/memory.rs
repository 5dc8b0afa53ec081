//! Memory, in which secrets and customers' texts are: nobody else reads it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Has no core dump written of this process and its children, and lets no other process of this user look into it.
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
