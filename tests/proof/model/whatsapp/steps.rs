//! What each statement does, and whatever else happens.

use super::engine::{Answer, Wire, Word};
use super::rules::Rule;
use super::state::{Delivery, DueAt, Lease, Process, State, Status, bit};

// delivery::claim
//
// It also sees whether there is evidence.

pub fn claim(wire: &Wire, state: &mut State, p: usize, m: usize) {
    let token = state.new_token();
    let Some(delivery) = state.deliveries[m] else {
        return;
    };
    let among = |accepted| {
        if wire.has(Rule::LaterOnly) {
            accepted
        } else {
            u8::MAX
        }
    };
    let evidence = delivery
        .doubt
        .map(|accepted| state.has_evidence(among(accepted)));
    state.deliveries[m] = Some(Delivery {
        due_at: DueAt::Future,
        lease_token: Some(token),
        unsettled: delivery.unsettled + 1,
        ..delivery
    });
    state.processes[p] = Process::Leased(Lease {
        message: m,
        token,
        has_ended: false,
        is_interrupted: delivery.unsettled > 0,
        evidence,
        doubted: 0,
    });
}

// delivery::attempt

pub fn call(state: &mut State, p: usize) {
    if let Process::Leased(lease) = state.processes[p] {
        let doubted = doubted(state);
        state.processes[p] = Process::Calling(Lease { doubted, ..lease });
    }
}

fn doubted(state: &State) -> u8 {
    let doubted = state
        .queue()
        .filter(|(_, delivery)| delivery.doubt.is_some());
    doubted.fold(0, |set, (m, _)| set | bit(m))
}

/// The provider delivers what it takes as often as it takes it, and sends a status each time.
pub fn take(wire: &Wire, state: &mut State, p: usize) {
    if let Process::Calling(lease) = state.processes[p] {
        state.processes[p] = Process::Taken(lease);
        state.messages[lease.message].deliveries += 1;
        state.underway.push(lease.message);
        if !wire.is_in_order {
            state.underway.sort_unstable();
        }
    }
}

pub fn answer(state: &mut State, p: usize, how: Answer) {
    let (Process::Calling(lease) | Process::Taken(lease)) = state.processes[p] else {
        return;
    };
    if how != Answer::Accepted {
        state.trouble.failures -= 1;
    }
    let is_ambiguous = how == Answer::Lost;
    state.processes[p] = match how {
        Answer::Accepted => Process::Accepted(lease),
        Answer::Refused | Answer::Lost => Process::Failed {
            lease,
            is_ambiguous,
        },
    };
}

pub fn fail(state: &mut State, p: usize, is_ambiguous: bool) {
    if let Process::Leased(lease) = state.processes[p] {
        state.processes[p] = Process::Failed {
            lease,
            is_ambiguous,
        };
    }
}

// delivery::mark_sent
//
// By the message's id, whoever holds the lease: after the answer, or by a status.

pub fn mark_sent(wire: &Wire, state: &mut State, p: usize) {
    let Process::Accepted(lease) = state.processes[p] else {
        return;
    };
    state.processes[p] = Process::Idle;
    // Else a status has, and `bind` only fills this in.
    if state.deliveries[lease.message].is_some() {
        settle(state, lease.message);
    }
    // `accepted_at`: when the call began.
    let before = if wire.has(Rule::CallBegan) {
        lease.doubted
    } else {
        u8::MAX
    };
    witness(state, lease.message, before);
}

/// It was accepted after the doubts about these messages began.
fn witness(state: &mut State, m: usize, doubted: u8) {
    for (other, delivery) in state.deliveries.iter_mut().enumerate() {
        let doubt = delivery
            .as_mut()
            .and_then(|delivery| delivery.doubt.as_mut());
        if let Some(accepted) = doubt
            && doubted & bit(other) != 0
        {
            *accepted |= bit(m);
        }
    }
}

/// Of what a status settles, it is not known when it was accepted.
fn settle(state: &mut State, m: usize) {
    state.deliveries[m] = None;
    state.messages[m].status = Status::Sent;
}

// delivery::mark_failed
//
// Only for the holder of the current token.

pub fn mark_failed(state: &mut State, p: usize) {
    let Process::Failed {
        lease,
        is_ambiguous,
    } = state.processes[p]
    else {
        return;
    };
    state.processes[p] = Process::Idle;
    let Some(delivery) = held(state, lease) else {
        return;
    };
    delivery.due_at = DueAt::Future;
    delivery.lease_token = None;
    delivery.unsettled = 0;
    delivery.doubt = None;
    state.messages[lease.message].status = Status::Failed;
    if is_ambiguous {
        doubt(state, lease.message);
    }
}

fn held(state: &mut State, lease: Lease) -> Option<&mut Delivery> {
    let delivery = state.deliveries[lease.message].as_mut();
    delivery.filter(|delivery| delivery.lease_token == Some(lease.token))
}

/// Its doubt begins now, and no call after it.
fn doubt(state: &mut State, m: usize) {
    if let Some(delivery) = &mut state.deliveries[m] {
        delivery.doubt = Some(0);
    }
    for lease in state.processes.iter_mut().filter_map(Process::lease_mut) {
        lease.doubted &= !bit(m);
    }
}

// delivery::leave

pub fn leave(state: &mut State, p: usize) {
    let Process::Leased(lease) = state.processes[p] else {
        return;
    };
    state.processes[p] = Process::Idle;
    if let Some(delivery) = held(state, lease) {
        delivery.due_at = DueAt::Null;
        delivery.lease_token = None;
        delivery.unsettled = 0;
        state.messages[lease.message].is_held = true;
    }
}

// delivery::requeue

pub fn requeue(state: &mut State, m: usize, word: Word) {
    state.trouble.operations -= 1;
    if let Some(delivery) = &mut state.deliveries[m] {
        *delivery = Delivery {
            due_at: DueAt::Past,
            lease_token: None,
            unsettled: 0,
            doubt: None,
        };
    }
    state.messages[m].is_held = false;
    state.messages[m].is_insisted |= word == Word::MayBeTwice;
}

// delivery::cancel

pub fn cancel(wire: &Wire, state: &mut State, m: usize) {
    state.trouble.operations -= 1;
    let Some(delivery) = &mut state.deliveries[m] else {
        return;
    };
    let begins = delivery.unsettled > 0 && delivery.doubt.is_none();
    delivery.due_at = DueAt::Null;
    delivery.lease_token = None;
    state.messages[m].status = Status::Failed;
    state.messages[m].is_held = true;
    if begins && wire.has(Rule::CancelDoubt) {
        doubt(state, m);
    }
}

pub fn free(state: &mut State, m: usize) {
    if let Some(delivery) = &mut state.deliveries[m] {
        delivery.due_at = DueAt::Past;
    }
}

// receipt::upsert, and then delivery::mark_sent

pub fn tell(wire: &Wire, state: &mut State, m: usize) {
    arrive(state, m);
    state.messages[m].is_told = true;
    let Some(delivery) = state.deliveries[m] else {
        return;
    };
    let is_early = state.is_called(m);
    if (is_early && !wire.has(Rule::EarlyStatus))
        || (!delivery.is_leased() && !wire.has(Rule::AnyHolder))
    {
        return;
    }
    settle(state, m);
    if !wire.has(Rule::NoWitness) {
        witness(state, m, u8::MAX);
    }
}

fn arrive(state: &mut State, m: usize) {
    let at = state.underway.iter().position(|&underway| underway == m);
    state.underway.remove(at.expect("it is on its way"));
}

pub fn forge(wire: &Wire, state: &mut State, m: usize) {
    state.trouble.forgeries -= 1;
    if !wire.has(Rule::Signed) {
        settle(state, m);
    }
}

// No statement

pub fn lose(state: &mut State, m: usize) {
    state.trouble.losses -= 1;
    arrive(state, m);
    state.messages[m].is_lost = true;
}

pub fn crash(state: &mut State, p: usize) {
    state.trouble.crashes -= 1;
    state.processes[p] = Process::Idle;
}

pub fn lease_ends(state: &mut State, m: usize) {
    let Some(delivery) = &mut state.deliveries[m] else {
        return;
    };
    delivery.due_at = DueAt::Past;
    for lease in state.processes.iter_mut().filter_map(Process::lease_mut) {
        if lease.message == m && Some(lease.token) == delivery.lease_token {
            lease.has_ended = true;
            state.trouble.delays -= 1;
        }
    }
}

pub fn wait_ends(state: &mut State, m: usize) {
    if let Some(delivery) = &mut state.deliveries[m] {
        delivery.due_at = DueAt::Past;
    }
}
