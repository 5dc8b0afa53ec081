//! Why each rule is there: what happens without it. A and B are processes, `ONE` and `TWO`
//! messages.

use super::engine::{
    Action::*,
    Answer::{Accepted, Lost},
    Wire, Word,
};
use super::rules::*;
use super::state::Trouble;
use super::{NO_TROUBLE, wire};
use crate::proof::model::proof::assert_broken;

const A_CRASH: Trouble = Trouble {
    crashes: 1,
    ..NO_TROUBLE
};
const A_FAILURE: Trouble = Trouble {
    failures: 1,
    ..NO_TROUBLE
};
const AN_INCIDENT: Trouble = Trouble {
    incidents: 1,
    ..A_FAILURE
};
const A: usize = 0;
const B: usize = 1;
const ONE: usize = 0;
const TWO: usize = 1;

#[test]
fn a_status_that_anybody_can_make_up_loses_a_message() {
    let trouble = Trouble {
        forgeries: 1,
        ..NO_TROUBLE
    };
    let wire = wire(1, 1, trouble);
    assert_broken(&[Rule::Signed], wire, NOT_UNSENT, &[Forge(ONE)]);
}

#[test]
fn a_status_before_the_answer_that_is_dropped_settles_nothing() {
    let story = [Claim(A, ONE), Call(A), Take(A), Tell(ONE)];
    let wire = wire(1, 1, NO_TROUBLE);
    assert_broken(&[Rule::EarlyStatus], wire, SETTLED, &story);
}

#[test]
fn a_status_that_needs_the_lease_does_not_settle_what_waits() {
    let story = [
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        Tell(ONE),
    ];
    let wire = wire(1, 1, A_FAILURE);
    assert_broken(&[Rule::AnyHolder], wire, SETTLED, &story);
}

#[test]
fn what_was_interrupted_and_is_sent_at_once_is_delivered_twice() {
    let story = [
        Claim(A, ONE),
        Call(A),
        Take(A),
        Crash(A),
        LeaseEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 1, A_CRASH);
    assert_broken(&[Rule::Interrupted], wire, NOT_TWICE, &story);
}

#[test]
fn evidence_before_its_own_status_could_come_is_none() {
    let story = [
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        WaitEnds(ONE), // and its status is still on its way
        Claim(A, TWO),
        Call(A),
        Take(A),
        Answer(A, Accepted),
        MarkSent(A),
        Tell(TWO),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 2, A_FAILURE);
    assert_broken(&[Rule::DoubtWaits], wire, NOT_TWICE, &story);
}

#[test]
fn what_is_sent_again_when_no_status_comes_at_all_is_delivered_twice() {
    let story = [
        IncidentBegins,
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        WaitEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 1, AN_INCIDENT);
    assert_broken(&[Rule::Evidence], wire, NOT_TWICE, &story);
}

#[test]
fn a_status_of_what_was_accepted_earlier_is_no_evidence() {
    let story = [
        Claim(A, TWO),
        Call(A),
        Take(A),
        Answer(A, Accepted),
        MarkSent(A),
        Tell(TWO),
        IncidentBegins,
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        WaitEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 2, AN_INCIDENT);
    assert_broken(&[Rule::LaterOnly], wire, NOT_TWICE, &story);
}

#[test]
fn a_call_that_began_earlier_is_no_evidence_although_it_is_answered_later() {
    let story = [
        Claim(A, TWO),
        Call(A),
        Take(A),
        Claim(B, ONE),
        Call(B),
        Take(B),
        Answer(B, Lost),
        MarkFailed(B),
        Answer(A, Accepted),
        MarkSent(A),
        Tell(TWO),
        IncidentBegins, // the status of ONE is on its way
        WaitEnds(ONE),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = Wire {
        is_in_order: true,
        ..wire(2, 2, AN_INCIDENT)
    };
    assert_broken(&[Rule::CallBegan], wire, NOT_TWICE, &story);
}

#[test]
fn what_a_status_settles_may_have_been_accepted_earlier_and_is_no_evidence() {
    let story = [
        Claim(A, TWO),
        Call(A),
        Take(A),
        Claim(B, ONE),
        Call(B),
        Take(B),
        Answer(B, Lost),
        MarkFailed(B),
        Tell(TWO),
        IncidentBegins,
        WaitEnds(ONE),
        Claim(B, ONE),
        Call(B),
        Take(B),
    ];
    let wire = Wire {
        is_in_order: true,
        ..wire(2, 2, AN_INCIDENT)
    };
    assert_broken(&[Rule::NoWitness], wire, NOT_TWICE, &story);
}

#[test]
fn what_evidence_frees_is_sent_although_an_operator_may_be_at_it() {
    let story = [
        IncidentBegins,
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        WaitEnds(ONE),
        Claim(A, ONE),
        Leave(A),
        Claim(A, TWO),
        Call(A),
        Take(A),
        Answer(A, Accepted),
        MarkSent(A),
        IncidentEnds,
        Tell(TWO),
        Free(ONE),
        Claim(A, ONE),
        Call(A),
    ];
    let wire = wire(1, 2, AN_INCIDENT);
    assert_broken(&[Rule::HeldStays], wire, HELD, &story);
}

#[test]
fn a_retry_without_a_second_thought_delivers_twice() {
    let trouble = Trouble {
        operations: 1,
        ..A_FAILURE
    };
    let story = [
        Claim(A, ONE),
        Call(A),
        Take(A),
        Answer(A, Lost),
        MarkFailed(A),
        Requeue(ONE, Word::None),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 1, trouble);
    assert_broken(&[Rule::CarefulRequeue], wire, NOT_TWICE, &story);
}

#[test]
fn a_cancel_that_forgets_an_unsettled_attempt_lets_a_retry_deliver_twice() {
    let trouble = Trouble {
        operations: 2,
        ..A_CRASH
    };
    let story = [
        Claim(A, ONE),
        Call(A),
        Take(A),
        Crash(A),
        LeaseEnds(ONE),
        Cancel(ONE),
        Requeue(ONE, Word::None),
        Claim(A, ONE),
        Call(A),
        Take(A),
    ];
    let wire = wire(1, 1, trouble);
    assert_broken(&[Rule::CancelDoubt], wire, NOT_TWICE, &story);
}
