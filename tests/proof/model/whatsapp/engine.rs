//! What can happen, and what each statement does. Statements that look before they lock, and what
//! a lease is good for, are left to the model of the engine: here each is one step.

use stateright::{Model, Property};

use super::rules::{self, Rule};
use super::state::{Delivery, DueAt, Lease, Message, Process, State, Status, Trouble, bit};

/// How much of everything, and what is taken away.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub processes: usize,
    pub messages: usize,
    /// Statuses come in the order in which their messages were accepted.
    pub is_in_order: bool,
    pub trouble: Trouble,
    pub without: &'static [Rule],
}

/// `p` is a process, `m` a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Claim(usize, usize),
    Call(usize),
    /// No call: it might outlast the lease.
    GiveUp(usize),
    /// No call: the attempt before was never settled, and so counts as lost.
    Interrupt(usize),
    /// No call: the one before may have been accepted, and nothing says that it was not.
    Leave(usize),
    /// The provider takes the message, and answers later.
    Take(usize),
    Answer(usize, Answer),
    MarkSent(usize),
    MarkFailed(usize),
    /// An operator's retry, and whether it is said that the message may be there twice then.
    Requeue(usize, Word),
    Cancel(usize),
    /// Only without its rule: evidence frees what is held.
    Free(usize),
    /// A status comes, with the value that the message was sent with.
    Tell(usize),
    /// So does one that nobody has signed.
    Forge(usize),
    /// It never comes.
    Lose(usize),
    IncidentBegins,
    /// After all waits: what was on its way comes from now on.
    IncidentEnds,
    Crash(usize),
    LeaseEnds(usize),
    WaitEnds(usize),
}

/// How a call ends for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Surely not accepted.
    Refused,
    /// Taken or not.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    None,
    MayBeTwice,
}

impl Model for Wire {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let message = Message {
            status: Status::Pending,
            is_told: false,
            is_held: false,
            is_insisted: false,
            deliveries: 0,
            is_lost: false,
        };
        let delivery = Delivery {
            due_at: DueAt::Past,
            lease_token: None,
            unsettled: 0,
            doubt: None,
        };
        vec![State {
            messages: vec![message; self.messages],
            deliveries: vec![Some(delivery); self.messages],
            processes: vec![Process::Idle; self.processes],
            underway: Vec::new(),
            is_incident: false,
            trouble: self.trouble,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for p in 0..self.processes {
            self.next(state, p, actions);
            if state.trouble.crashes > 0 && state.processes[p] != Process::Idle {
                actions.push(Action::Crash(p));
            }
        }
        self.possible_in_time(state, actions);
        self.possible_statuses(state, actions);
        self.possible_operations(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let state = &mut next;
        match action {
            Action::Claim(p, m) => claim(self, state, p, m),
            Action::Call(p) => call(state, p),
            Action::GiveUp(p) => state.processes[p] = Process::Idle,
            Action::Interrupt(p) => fail(state, p, true),
            Action::Leave(p) => leave(state, p),
            Action::Take(p) => take(self, state, p),
            Action::Answer(p, how) => answer(state, p, how),
            Action::MarkSent(p) => mark_sent(self, state, p),
            Action::MarkFailed(p) => mark_failed(state, p),
            Action::Requeue(m, word) => requeue(state, m, word),
            Action::Cancel(m) => cancel(self, state, m),
            Action::Free(m) => free(state, m),
            Action::Tell(m) => tell(self, state, m),
            Action::Forge(m) => forge(self, state, m),
            Action::Lose(m) => lose(state, m),
            Action::IncidentBegins => {
                state.trouble.incidents -= 1;
                state.is_incident = true;
            }
            Action::IncidentEnds => state.is_incident = false,
            Action::Crash(p) => crash(state, p),
            Action::LeaseEnds(m) => lease_ends(state, m),
            Action::WaitEnds(m) => wait_ends(state, m),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = rules::promises();
        properties.extend(rules::events());
        properties
    }
}

impl Wire {
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// What a process does next. A busy one has no choice.
    fn next(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        let next = match state.processes[p] {
            Process::Idle => {
                let due = state
                    .queue()
                    .filter(|(_, delivery)| delivery.due_at == DueAt::Past);
                actions.extend(due.map(|(m, _)| Action::Claim(p, m)));
                return;
            }
            Process::Calling(_) | Process::Taken(_) => {
                let is_taken = matches!(state.processes[p], Process::Taken(_));
                let surely = if is_taken {
                    Answer::Accepted
                } else {
                    Answer::Refused
                };
                if !is_taken {
                    actions.push(Action::Take(p));
                }
                if is_taken || state.trouble.failures > 0 {
                    actions.push(Action::Answer(p, surely));
                }
                if state.trouble.failures > 0 {
                    actions.push(Action::Answer(p, Answer::Lost));
                }
                return;
            }
            Process::Leased(lease) if lease.has_ended => Action::GiveUp(p),
            Process::Leased(lease) if lease.is_interrupted && self.has(Rule::Interrupted) => {
                Action::Interrupt(p)
            }
            Process::Leased(lease) if lease.evidence == Some(false) && self.has(Rule::Evidence) => {
                Action::Leave(p)
            }
            Process::Leased(_) => Action::Call(p),
            Process::Accepted(_) => Action::MarkSent(p),
            Process::Failed { .. } => Action::MarkFailed(p),
        };
        actions.push(next);
    }

    fn possible_in_time(&self, state: &State, actions: &mut Vec<Action>) {
        for (m, delivery) in state.queue() {
            if delivery.is_waiting() && self.can_wait_end(state, m, delivery) {
                actions.push(Action::WaitEnds(m));
            }
            if delivery.is_leased() && can_lease_end(state, m, delivery) {
                actions.push(Action::LeaseEnds(m));
            }
        }
    }

    /// Statuses come within the wait, but in an incident.
    fn can_wait_end(&self, state: &State, m: usize, delivery: Delivery) -> bool {
        delivery.doubt.is_none()
            || !state.underway.contains(&m)
            || state.is_incident
            || !self.has(Rule::DoubtWaits)
    }

    fn possible_statuses(&self, state: &State, actions: &mut Vec<Action>) {
        let next = if self.is_in_order { 1 } else { usize::MAX };
        for (at, &m) in state.underway.iter().enumerate().take(next) {
            if !state.is_incident && !state.underway[..at].contains(&m) {
                actions.push(Action::Tell(m));
                if state.trouble.losses > 0 {
                    actions.push(Action::Lose(m));
                }
            }
        }
        for (m, message) in state.messages.iter().enumerate() {
            if state.trouble.forgeries > 0 && message.status != Status::Sent {
                actions.push(Action::Forge(m));
            }
        }
        let may_begin = self.is_in_order || state.underway.is_empty();
        if state.trouble.incidents > 0 && !state.is_incident && may_begin {
            actions.push(Action::IncidentBegins);
        }
        let is_idle = state.processes.iter().all(|p| *p == Process::Idle);
        if state.is_incident && is_idle && state.queue().all(|(_, it)| it.is_parked()) {
            actions.push(Action::IncidentEnds);
        }
    }

    fn possible_operations(&self, state: &State, actions: &mut Vec<Action>) {
        for (m, delivery) in state.queue() {
            let may_be_accepted = delivery.doubt.is_some() || delivery.lease_token.is_some();
            let is_tried = delivery.is_parked() || delivery.is_waiting() || delivery.unsettled > 0;
            if state.trouble.operations > 0 && !delivery.is_leased() {
                if is_tried && (!may_be_accepted || !self.has(Rule::CarefulRequeue)) {
                    actions.push(Action::Requeue(m, Word::None));
                }
                if is_tried {
                    actions.push(Action::Requeue(m, Word::MayBeTwice));
                }
                if !delivery.is_parked() {
                    actions.push(Action::Cancel(m));
                }
            }
            let has_evidence = delivery
                .doubt
                .is_some_and(|accepted| state.has_evidence(accepted));
            if delivery.is_parked() && has_evidence && !self.has(Rule::HeldStays) {
                actions.push(Action::Free(m));
            }
        }
    }
}

/// At any moment when its holder is dead, but not during the call that it covers.
fn can_lease_end(state: &State, m: usize, delivery: Delivery) -> bool {
    let is_holder = |process: &&Process| {
        let lease = process.lease();
        lease.is_some_and(|lease| lease.message == m && Some(lease.token) == delivery.lease_token)
    };
    match state.processes.iter().find(is_holder) {
        None => true,
        Some(Process::Calling(_) | Process::Taken(_)) => false,
        Some(_) => state.trouble.delays > 0,
    }
}

// delivery::claim
//
// It also sees whether there is evidence.

fn claim(wire: &Wire, state: &mut State, p: usize, m: usize) {
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

fn call(state: &mut State, p: usize) {
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
fn take(wire: &Wire, state: &mut State, p: usize) {
    if let Process::Calling(lease) = state.processes[p] {
        state.processes[p] = Process::Taken(lease);
        state.messages[lease.message].deliveries += 1;
        state.underway.push(lease.message);
        if !wire.is_in_order {
            state.underway.sort_unstable();
        }
    }
}

fn answer(state: &mut State, p: usize, how: Answer) {
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

fn fail(state: &mut State, p: usize, is_ambiguous: bool) {
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

fn mark_sent(wire: &Wire, state: &mut State, p: usize) {
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

fn mark_failed(state: &mut State, p: usize) {
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

fn leave(state: &mut State, p: usize) {
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

fn requeue(state: &mut State, m: usize, word: Word) {
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

fn cancel(wire: &Wire, state: &mut State, m: usize) {
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

fn free(state: &mut State, m: usize) {
    if let Some(delivery) = &mut state.deliveries[m] {
        delivery.due_at = DueAt::Past;
    }
}

// receipt::upsert, and then delivery::mark_sent

fn tell(wire: &Wire, state: &mut State, m: usize) {
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

fn forge(wire: &Wire, state: &mut State, m: usize) {
    state.trouble.forgeries -= 1;
    if !wire.has(Rule::Signed) {
        settle(state, m);
    }
}

// No statement

fn lose(state: &mut State, m: usize) {
    state.trouble.losses -= 1;
    arrive(state, m);
    state.messages[m].is_lost = true;
}

fn crash(state: &mut State, p: usize) {
    state.trouble.crashes -= 1;
    state.processes[p] = Process::Idle;
}

fn lease_ends(state: &mut State, m: usize) {
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

fn wait_ends(state: &mut State, m: usize) {
    if let Some(delivery) = &mut state.deliveries[m] {
        delivery.due_at = DueAt::Past;
    }
}
