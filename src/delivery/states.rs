//! The states of a delivery, each as a condition on its row: defined here and nowhere else.
//!
//! A delivery is in one of them at any time. The indexes `deliveries_blocked` and
//! `deliveries_parked` hold those of their state; `deliveries_due` all that are not parked.

/// A statement in which the name of a state stands for its condition. The pieces of the statement
/// are in brackets; behind them come its arguments. (A macro, since `query!` takes only literals.)
macro_rules! query_states {
    (@next $call:ident $of:tt [due $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add "due_at <= now()",
            $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident $of:tt [leased $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add "due_at > now() and lease_token is not null",
            $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident $of:tt [waiting $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add "attempt > 0 and lease_token is null and due_at > now()",
            $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident $of:tt [blocked $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add "attempt = 0 and lease_token is null and due_at > now()",
            $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident $of:tt [parked $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add "due_at is null",
            $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident $of:tt [$text:literal $($rest:tt)*] $sql:tt $($argument:tt)*) => {
        query_states!(@add $text, $call $of [$($rest)*] $sql $($argument)*)
    };
    (@next $call:ident [$($of:tt)*] [] [$($sql:tt)*] $($argument:tt)*) => {
        sqlx::$call!($($of)* $($sql)* $($argument)*)
    };
    (@add $text:literal, $call:ident $of:tt $rest:tt [$($sql:tt)*] $($argument:tt)*) => {
        query_states!(@next $call $of $rest [$($sql)* + $text] $($argument)*)
    };
    ($call:ident $($of:ident)? [$($part:tt)*] $($argument:tt)*) => {
        query_states!(@next $call [$($of,)?] [$($part)*] [""] $($argument)*)
    };
}
pub(super) use query_states;
