//! Why each rule is there: what happens without it. A and B are processes, `ONE` and `TWO`
//! messages.

use super::engine::{
    Action::*,
    Answer::{self, Accepted},
    Engine, Taken,
};
use super::proof::assert_broken;
use super::rules::*;
use super::state::Trouble;
use super::{NO_TROUBLE, engine};

const A_CRASH: Trouble = Trouble {
    crashes: 1,
    ..NO_TROUBLE
};
const A_DELAY: Trouble = Trouble {
    delays: 1,
    ..NO_TROUBLE
};
const A_FAILURE: Trouble = Trouble {
    failures: 1,
    ..NO_TROUBLE
};
const AN_OPERATION: Trouble = Trouble {
    operations: 1,
    ..NO_TROUBLE
};
const A: usize = 0;
const B: usize = 1;
const ONE: usize = 0;
const TWO: usize = 1;
const FAILED: Answer = Answer::Failed {
    taken: Taken::No,
    is_final: false,
};
const FAILED_FOR_GOOD: Answer = Answer::Failed {
    taken: Taken::No,
    is_final: true,
};
const LOST: Answer = Answer::Failed {
    taken: Taken::Yes,
    is_final: false,
};

#[test]
fn an_answer_before_the_commit_loses_a_message() {
    let story = [EnqueueBegins(A, ONE), Crash(A, Taken::No)];
    assert_broken(
        &[Rule::CommitFirst],
        engine(2, 1, A_CRASH),
        NOT_LOST,
        &story,
    );
}

#[test]
fn without_a_look_at_the_number_before_it_a_message_overtakes() {
    let story = [
        EnqueueBegins(A, ONE),
        EnqueueBegins(B, TWO),
        Enqueue(A),
        Enqueue(B),
        Call(B),
    ];
    assert_broken(
        &[Rule::SeqCheck],
        engine(2, 2, NO_TROUBLE),
        IN_ORDER,
        &story,
    );
}

#[test]
fn without_a_release_after_its_accept_a_message_is_stuck() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        EnqueueBegins(B, TWO), // and sees ONE
        Call(A),
        Answer(A, Accepted),
        MarkSent(A),
        ReleaseBegins(A), // and sees nothing
        Enqueue(B),
    ];
    let rules = &[Rule::ReleaseAfterAccept, Rule::Sweep];
    assert_broken(rules, engine(2, 2, NO_TROUBLE), NOT_STUCK, &story);
}

#[test]
fn without_a_row_lock_in_the_claim_a_message_has_two_leases() {
    let story = [
        EnqueueBegins(A, ONE),
        EnqueueUnleased(A),
        ReleaseBegins(A),
        ClaimBegins(A, ONE),
        ClaimBegins(B, ONE),
        Claim(A, ONE),
        Claim(B, ONE),
    ];
    assert_broken(
        &[Rule::RowLock],
        engine(2, 1, NO_TROUBLE),
        ONE_LEASE,
        &story,
    );
}

#[test]
fn during_a_lease_that_is_shorter_than_the_call_another_call_begins() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        LeaseEnds(ONE),
        Claim(B, ONE),
        Call(B),
    ];
    assert_broken(&[Rule::LongLease], engine(2, 1, A_DELAY), ONE_CALL, &story);
}

#[test]
fn a_call_that_begins_when_its_lease_has_ended_overlaps_with_another() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        LeaseEnds(ONE),
        Claim(B, ONE),
        Call(B),
        Call(A),
    ];
    assert_broken(&[Rule::Deadline], engine(2, 1, A_DELAY), ONE_CALL, &story);
}

#[test]
fn a_key_for_each_call_delivers_twice() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Answer(A, LOST),
        MarkFailed(A),
        WaitEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Answer(A, Accepted),
    ];
    assert_broken(
        &[Rule::OneKey],
        engine(2, 1, A_FAILURE),
        NOT_DOUBLED,
        &story,
    );
}

#[test]
fn without_keys_a_message_whose_sender_died_must_be_held_too() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Crash(A, Taken::Yes),
        LeaseEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Answer(A, Accepted),
    ];
    let engine = Engine {
        holds_ambiguous: true,
        ..engine(2, 1, A_CRASH)
    };
    assert_broken(
        &[Rule::OneKey, Rule::HoldDoubtful],
        engine,
        NOT_DOUBLED,
        &story,
    );
}

#[test]
fn without_its_token_a_late_failure_gives_away_the_lease_of_another() {
    let trouble = Trouble {
        delays: 1,
        failures: 1,
        ..NO_TROUBLE
    };
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Answer(A, FAILED),
        LeaseEnds(ONE),
        Claim(B, ONE),
        Call(B),
        MarkFailed(A),
        WaitEnds(ONE),
        Claim(A, ONE),
    ];
    assert_broken(&[Rule::Token], engine(2, 1, trouble), ONE_LEASE, &story);
}

#[test]
fn a_finish_that_releases_in_the_same_statement_leaves_a_message_stuck() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Answer(A, Accepted),
        MarkSentBegins(A),     // and sees nothing behind ONE
        EnqueueBegins(B, TWO), // and sees ONE
        Enqueue(B),
        ReleaseBegins(B), // and sees ONE in front
        MarkSent(A),
    ];
    let rules = &[Rule::ReleaseApart, Rule::Sweep];
    assert_broken(rules, engine(2, 2, NO_TROUBLE), NOT_STUCK, &story);
}

#[test]
fn a_release_that_does_not_look_again_lets_what_was_requeued_meanwhile_overtake() {
    let trouble = Trouble {
        failures: 1,
        operations: 3,
        ..NO_TROUBLE
    };
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Answer(A, FAILED_FOR_GOOD),
        MarkFailed(A),
        ReleaseBegins(A),
        Requeue(B, ONE),
        ReleaseBegins(B), // and sees ONE in front
        Cancel(A, ONE),
        ReleaseBegins(A),
        EnqueueBegins(A, TWO),
        EnqueueUnleased(A),
        ReleaseBegins(A),
        Requeue(A, ONE), // behind TWO
        Release(B),
        Claim(B, ONE),
        Call(B),
    ];
    assert_broken(&[Rule::PlaceCheck], engine(2, 2, trouble), IN_ORDER, &story);
}

#[test]
fn without_the_sweep_a_crash_leaves_a_message_stuck() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        EnqueueBegins(B, TWO),
        Enqueue(B),
        ReleaseBegins(B),
        Call(A),
        Answer(A, Accepted),
        MarkSent(A),
        Crash(A, Taken::No),
    ];
    assert_broken(&[Rule::Sweep], engine(2, 2, A_CRASH), NOT_STUCK, &story);
}

#[test]
fn a_requeue_of_what_is_leased_gives_it_a_second_lease() {
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Requeue(B, ONE),
        ReleaseBegins(B),
        Claim(B, ONE),
    ];
    assert_broken(
        &[Rule::RequeueGuard],
        engine(2, 1, AN_OPERATION),
        ONE_LEASE,
        &story,
    );
}

#[test]
fn a_requeued_message_that_keeps_its_number_meets_a_call_behind_it() {
    let trouble = Trouble {
        failures: 1,
        operations: 1,
        ..NO_TROUBLE
    };
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Call(A),
        Answer(A, FAILED_FOR_GOOD),
        MarkFailed(A),
        ReleaseBegins(A),
        EnqueueBegins(A, TWO),
        Enqueue(A),
        Call(A),
        Requeue(B, ONE),
    ];
    assert_broken(&[Rule::NewPlace], engine(2, 2, trouble), IN_ORDER, &story);
}

#[test]
fn a_cancel_of_what_is_leased_gives_it_a_second_lease_when_it_is_requeued() {
    let trouble = Trouble {
        operations: 2,
        ..NO_TROUBLE
    };
    let story = [
        EnqueueBegins(A, ONE),
        Enqueue(A),
        Cancel(B, ONE),
        ReleaseBegins(B),
        Requeue(B, ONE),
        ReleaseBegins(B),
        Release(B),
        Claim(B, ONE),
    ];
    assert_broken(
        &[Rule::CancelGuard],
        engine(2, 1, trouble),
        ONE_LEASE,
        &story,
    );
}
