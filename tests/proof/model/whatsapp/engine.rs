//! What can happen. Statements that look before they lock, and what a lease is good for, are left to
//! the model of the engine: here each is one step.

use stateright::{Model, Property};

use super::rules::{self, Rule};
use super::state::{Delivery, DueAt, Message, Process, State, Status, Trouble};
use super::steps;

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
            Action::Claim(p, m) => steps::claim(self, state, p, m),
            Action::Call(p) => steps::call(state, p),
            Action::GiveUp(p) => state.processes[p] = Process::Idle,
            Action::Interrupt(p) => steps::fail(state, p, true),
            Action::Leave(p) => steps::leave(state, p),
            Action::Take(p) => steps::take(self, state, p),
            Action::Answer(p, how) => steps::answer(state, p, how),
            Action::MarkSent(p) => steps::mark_sent(self, state, p),
            Action::MarkFailed(p) => steps::mark_failed(state, p),
            Action::Requeue(m, word) => steps::requeue(state, m, word),
            Action::Cancel(m) => steps::cancel(self, state, m),
            Action::Free(m) => steps::free(state, m),
            Action::Tell(m) => steps::tell(self, state, m),
            Action::Forge(m) => steps::forge(self, state, m),
            Action::Lose(m) => steps::lose(state, m),
            Action::IncidentBegins => {
                state.trouble.incidents -= 1;
                state.is_incident = true;
            }
            Action::IncidentEnds => state.is_incident = false,
            Action::Crash(p) => steps::crash(state, p),
            Action::LeaseEnds(m) => steps::lease_ends(state, m),
            Action::WaitEnds(m) => steps::wait_ends(state, m),
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
