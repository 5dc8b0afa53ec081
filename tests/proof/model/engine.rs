//! What can happen, and what each statement does: to the tables, and to what its process knows
//! then.
//!
//! A statement takes effect at once, when it commits. But what it reads without a lock it reads in
//! its snapshot, which is older than the locks that it waits for. So those that look before they
//! lock take two steps: `…Begins` takes the snapshot, the statement's name is the commit. What the
//! others look at, they have locked.

use stateright::{Model, Property};

use super::rules::{self, Rule};
use super::state::{Delivery, DueAt, Lease, Message, Process, State, Status, Token, Trouble};

/// How much of everything, and what is taken away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    /// Each accepts, works and obeys operators, one thing at a time. A program that does many
    /// things at once is as many of these, and its crash as many crashes in a row.
    pub processes: usize,
    /// With `DELIVERY_ORDER=conversation`, all in one conversation. With `none` a message is alone,
    /// as one is here.
    pub messages: usize,
    /// `AMBIGUOUS_POLICY=hold`: a message that the provider may have taken waits for an operator.
    pub holds_ambiguous: bool,
    pub trouble: Trouble,
    pub without: &'static [Rule],
}

/// The first number is the process, the second the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    EnqueueBegins(usize, usize),
    Enqueue(usize),
    /// The same where nothing may be called now (no permit, calls are paused or spread): due, for
    /// whoever claims it.
    EnqueueUnleased(usize),
    ClaimBegins(usize, usize),
    Claim(usize, usize),
    Call(usize),
    /// No call: it might outlast the lease.
    GiveUp(usize),
    /// No call: the one before may have been taken. The message fails for good.
    Hold(usize),
    Answer(usize, Answer),
    MarkSentBegins(usize),
    MarkSent(usize),
    MarkFailed(usize),
    ReleaseBegins(usize),
    Release(usize),
    ListUnreleased(usize),
    Requeue(usize, usize),
    Cancel(usize, usize),
    /// The process is another afterwards, which knows nothing.
    Crash(usize, Taken),
    /// A moment has come, for this message.
    LeaseEnds(usize),
    WaitEnds(usize),
}

/// How a call ends for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Refused or lost. Final: by its kind, or the budget is used up.
    Failed {
        taken: Taken,
        is_final: bool,
    },
}

/// Whether the provider has taken the message of a call that ended without its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    No,
}

impl Model for Engine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            outbound_seq: 0,
            messages: vec![Message::default(); self.messages],
            deliveries: vec![None; self.messages],
            processes: vec![Process::Idle; self.processes],
            trouble: self.trouble,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for p in 0..self.processes {
            self.next(state, p, actions);
            possible_crashes(state, p, actions);
        }
        self.possible_in_time(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let state = &mut next;
        match action {
            Action::EnqueueBegins(p, m) => accept_begins(self, state, p, m),
            Action::Enqueue(p) => enqueue(self, state, p, true),
            Action::EnqueueUnleased(p) => enqueue(self, state, p, false),
            Action::ClaimBegins(p, m) => state.processes[p] = Process::Claiming { message: m },
            Action::Claim(p, m) => claim(self, state, p, m),
            Action::Call(p) => call(state, p),
            Action::GiveUp(p) => state.processes[p] = Process::Idle,
            Action::Hold(p) => hold(state, p),
            Action::Answer(p, how) => answer(self, state, p, how),
            Action::MarkSentBegins(p) => mark_sent_begins(state, p),
            Action::MarkSent(p) => mark_sent(state, p),
            Action::MarkFailed(p) => mark_failed(self, state, p),
            Action::ReleaseBegins(p) => release_begins(state, p),
            Action::Release(p) => release(self, state, p),
            Action::ListUnreleased(p) => state.processes[p] = Process::Unreleased,
            Action::Requeue(p, m) => requeue(self, state, p, m),
            Action::Cancel(p, m) => cancel(state, p, m),
            Action::Crash(p, taken) => crash(self, state, p, taken),
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

impl Engine {
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// What a process does next. A busy one has no choice.
    fn next(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        let next = match state.processes[p] {
            Process::Idle => return self.next_when_idle(state, p, actions),
            Process::Calling(_) => return self.possible_answers(state, p, actions),
            Process::Accepting { .. } => {
                actions.push(Action::EnqueueUnleased(p));
                Action::Enqueue(p)
            }
            Process::Claiming { message } => Action::Claim(p, message),
            Process::Leased(lease) if lease.has_ended && self.has(Rule::Deadline) => {
                Action::GiveUp(p)
            }
            Process::Leased(lease) if lease.is_doubtful => Action::Hold(p),
            Process::Leased(_) => Action::Call(p),
            Process::Accepted(_) if !self.has(Rule::ReleaseApart) => Action::MarkSentBegins(p),
            Process::Accepted(_) | Process::Finishing { .. } => Action::MarkSent(p),
            Process::Failed { .. } => Action::MarkFailed(p),
            Process::Unreleased => Action::ReleaseBegins(p),
            Process::Releasing { .. } => Action::Release(p),
        };
        actions.push(next);
    }

    fn next_when_idle(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        for (m, message) in state.messages.iter().enumerate() {
            if !message.is_acknowledged && !is_being_accepted(state, m) {
                actions.push(Action::EnqueueBegins(p, m));
            }
        }
        for (m, delivery) in state.queue() {
            if delivery.due_at == DueAt::Past && self.has(Rule::RowLock) {
                actions.push(Action::Claim(p, m));
            } else if delivery.due_at == DueAt::Past {
                actions.push(Action::ClaimBegins(p, m));
            }
            if state.trouble.operations > 0 && is_requeueable(self, state, m) {
                actions.push(Action::Requeue(p, m));
            }
            if state.trouble.operations > 0 && is_cancelable(self, delivery) {
                actions.push(Action::Cancel(p, m));
            }
        }
        if list_unreleased(state) && self.has(Rule::Sweep) {
            actions.push(Action::ListUnreleased(p));
        }
    }

    fn possible_answers(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        actions.push(Action::Answer(p, Answer::Accepted));
        if state.trouble.failures == 0 {
            return;
        }
        for (taken, is_final) in [
            (Taken::No, false),
            (Taken::No, true),
            (Taken::Yes, false),
            (Taken::Yes, true),
        ] {
            if taken == Taken::No || is_final || !self.holds_ambiguous {
                actions.push(Action::Answer(p, Answer::Failed { taken, is_final }));
            }
        }
    }

    fn possible_in_time(&self, state: &State, actions: &mut Vec<Action>) {
        for (m, delivery) in state.queue() {
            if delivery.is_waiting() {
                actions.push(Action::WaitEnds(m));
            }
            if delivery.is_leased() && self.can_end(state, m, delivery.lease_token) {
                actions.push(Action::LeaseEnds(m));
            }
            // `ORDER_MAX_WAIT_MS` never ends: it would put an end to order, and mend what is stuck.
        }
    }

    /// Whether time may run out for a lease: at any moment when its holder is dead, but not during
    /// the call that it covers.
    fn can_end(&self, state: &State, message: usize, token: Option<Token>) -> bool {
        let is_holder = |process: &&Process| {
            let lease = process.lease();
            lease.is_some_and(|lease| lease.message == message && Some(lease.token) == token)
        };
        match state.processes.iter().find(is_holder) {
            None => true,
            Some(Process::Calling(_)) if self.has(Rule::LongLease) => false,
            Some(_) => state.trouble.delays > 0,
        }
    }
}

fn is_being_accepted(state: &State, m: usize) -> bool {
    let is_it =
        |process: &Process| matches!(process, Process::Accepting { message, .. } if *message == m);
    state.processes.iter().any(is_it)
}

fn possible_crashes(state: &State, p: usize, actions: &mut Vec<Action>) {
    let process = &state.processes[p];
    if state.trouble.crashes == 0 || *process == Process::Idle {
        return;
    }
    actions.push(Action::Crash(p, Taken::No));
    if matches!(process, Process::Calling(_)) {
        actions.push(Action::Crash(p, Taken::Yes));
    }
}

// message::enqueue
//
// Its snapshot shows the queue; the row lock of the conversation, held to the commit, gives the
// number.

fn accept_begins(engine: &Engine, state: &mut State, p: usize, message: usize) {
    state.processes[p] = Process::Accepting {
        message,
        seen_seq: state.outbound_seq,
        seen_queue: state.head().is_some(),
    };
    state.messages[message].is_acknowledged = !engine.has(Rule::CommitFirst);
}

fn enqueue(engine: &Engine, state: &mut State, p: usize, has_permit: bool) {
    let Process::Accepting {
        message,
        seen_seq,
        seen_queue,
    } = state.processes[p]
    else {
        return;
    };
    let is_blocked = seen_queue || engine.has(Rule::SeqCheck) && state.outbound_seq != seen_seq;
    state.outbound_seq += 1;
    state.messages[message].status = Some(Status::Pending);
    state.messages[message].is_acknowledged = true;
    let mut delivery = Delivery {
        seq: state.outbound_seq,
        due_at: DueAt::Past,
        lease_token: None,
        claims: 0,
        failed_attempts: 0,
    };
    if is_blocked {
        delivery.due_at = DueAt::Future;
    }
    state.processes[p] = if has_permit && !is_blocked {
        lease(engine, &mut delivery, message, state.new_token())
    } else if engine.has(Rule::ReleaseAfterAccept) {
        Process::Unreleased
    } else {
        Process::Idle
    };
    state.deliveries[message] = Some(delivery);
}

// delivery::claim
//
// What is due is locked and looked at again, what is locked is skipped: one step.

fn claim(engine: &Engine, state: &mut State, p: usize, message: usize) {
    let token = state.new_token();
    state.processes[p] = match &mut state.deliveries[message] {
        Some(delivery) => lease(engine, delivery, message, token),
        None => Process::Idle,
    };
}

/// Leases a delivery to a token; what the holder is then.
fn lease(engine: &Engine, delivery: &mut Delivery, message: usize, token: Token) -> Process {
    delivery.due_at = DueAt::Future;
    delivery.lease_token = Some(token);
    delivery.claims += 1;
    Process::Leased(Lease {
        message,
        token,
        has_ended: false,
        is_doubtful: engine.holds_ambiguous
            && engine.has(Rule::HoldDoubtful)
            && delivery.claims - delivery.failed_attempts > 1,
    })
}

// delivery::attempt
//
// A call has been taken by the time it ends, or never is.

fn call(state: &mut State, p: usize) {
    if let Process::Leased(lease) = state.processes[p] {
        state.processes[p] = Process::Calling(lease);
    }
}

fn hold(state: &mut State, p: usize) {
    if let Process::Leased(lease) = state.processes[p] {
        let is_final = true;
        state.processes[p] = Process::Failed { lease, is_final };
    }
}

fn answer(engine: &Engine, state: &mut State, p: usize, how: Answer) {
    let Process::Calling(lease) = state.processes[p] else {
        return;
    };
    state.processes[p] = match how {
        Answer::Accepted => {
            take(engine, state, lease.message, Taken::Yes);
            Process::Accepted(lease)
        }
        Answer::Failed { taken, is_final } => {
            state.trouble.failures -= 1;
            take(engine, state, lease.message, taken);
            Process::Failed { lease, is_final }
        }
    };
}

/// The provider delivers what it takes, once for each key.
fn take(engine: &Engine, state: &mut State, message: usize, taken: Taken) {
    let deliveries = &mut state.messages[message].deliveries;
    if taken == Taken::Yes && (*deliveries == 0 || !engine.has(Rule::OneKey)) {
        *deliveries += 1;
    }
}

// delivery::mark_sent
//
// By the message's id, whoever holds the lease.

fn mark_sent(state: &mut State, p: usize) {
    let (message, next) = match state.processes[p] {
        Process::Accepted(lease) => (lease.message, None),
        Process::Finishing { lease, next } => (lease.message, next),
        _ => return,
    };
    let is_released = matches!(state.processes[p], Process::Finishing { .. });
    state.processes[p] = Process::Idle;
    if state.deliveries[message].take().is_none() {
        return;
    }
    state.messages[message].status = Some(Status::Sent);
    if !is_released {
        state.processes[p] = Process::Unreleased;
    } else if let Some(delivery) = next.and_then(|next| state.deliveries[next].as_mut())
        && delivery.is_blocked()
    {
        delivery.due_at = DueAt::Past;
    }
}

/// Only where it releases what comes next in the same statement, and so in this snapshot.
fn mark_sent_begins(state: &mut State, p: usize) {
    let Process::Accepted(lease) = state.processes[p] else {
        return;
    };
    let mut after = state.clone();
    after.deliveries[lease.message] = None;
    let head = after.head().filter(|(_, delivery)| delivery.is_blocked());
    let next = head.map(|(message, _)| message);
    state.processes[p] = Process::Finishing { lease, next };
}

// delivery::mark_failed
//
// Only for the holder of the current token.

fn mark_failed(engine: &Engine, state: &mut State, p: usize) {
    let Process::Failed { lease, is_final } = state.processes[p] else {
        return;
    };
    state.processes[p] = Process::Idle;
    let Some(delivery) = &mut state.deliveries[lease.message] else {
        return;
    };
    if delivery.lease_token != Some(lease.token) && engine.has(Rule::Token) {
        return;
    }
    delivery.lease_token = None;
    delivery.failed_attempts += 1;
    delivery.due_at = DueAt::Future;
    state.messages[lease.message].status = Some(Status::Failed);
    if is_final {
        delivery.due_at = DueAt::Null;
        state.processes[p] = Process::Unreleased;
    }
}

// delivery::release
//
// The head is found in the snapshot, then locked and looked at again.

fn release_begins(state: &mut State, p: usize) {
    state.processes[p] = match state.head() {
        Some((head, delivery)) if delivery.is_blocked() => {
            let seq = delivery.seq;
            Process::Releasing { head, seq }
        }
        _ => Process::Idle,
    };
}

fn release(engine: &Engine, state: &mut State, p: usize) {
    let Process::Releasing { head, seq } = state.processes[p] else {
        return;
    };
    state.processes[p] = Process::Idle;
    if let Some(delivery) = &mut state.deliveries[head]
        && delivery.is_blocked()
        && (delivery.seq == seq || !engine.has(Rule::PlaceCheck))
    {
        delivery.due_at = DueAt::Past;
    }
}

// delivery::list_unreleased

/// Whether this conversation is one of those; a `release` follows.
pub fn list_unreleased(state: &State) -> bool {
    state
        .head()
        .is_some_and(|(_, delivery)| delivery.is_blocked())
}

// delivery::requeue
//
// A parked one goes to the end of the order, under the row lock of the conversation; another is
// due.

fn is_requeueable(engine: &Engine, state: &State, message: usize) -> bool {
    let Some(delivery) = &state.deliveries[message] else {
        return false;
    };
    let has_failed = state.messages[message].status == Some(Status::Failed);
    let is_free = delivery.lease_token.is_none() || delivery.due_at == DueAt::Past && has_failed;
    (is_free || !engine.has(Rule::RequeueGuard)) && (delivery.is_parked() || delivery.claims > 0)
}

fn requeue(engine: &Engine, state: &mut State, p: usize, message: usize) {
    state.trouble.operations -= 1;
    state.processes[p] = Process::Unreleased;
    let Some(delivery) = &mut state.deliveries[message] else {
        return;
    };
    delivery.due_at = if delivery.is_parked() {
        state.outbound_seq += 1;
        if engine.has(Rule::NewPlace) {
            delivery.seq = state.outbound_seq;
        }
        DueAt::Future
    } else {
        DueAt::Past
    };
    delivery.lease_token = None;
    delivery.claims = 0;
    delivery.failed_attempts = 0;
}

// delivery::cancel
//
// Parks what nobody holds.

fn is_cancelable(engine: &Engine, delivery: Delivery) -> bool {
    !delivery.is_parked() && (!delivery.is_leased() || !engine.has(Rule::CancelGuard))
}

fn cancel(state: &mut State, p: usize, message: usize) {
    state.trouble.operations -= 1;
    state.processes[p] = Process::Unreleased;
    state.messages[message].status = Some(Status::Failed);
    if let Some(delivery) = &mut state.deliveries[message] {
        delivery.due_at = DueAt::Null;
        delivery.lease_token = None;
    }
}

// No statement

fn crash(engine: &Engine, state: &mut State, p: usize, taken: Taken) {
    state.trouble.crashes -= 1;
    if let Process::Calling(lease) = state.processes[p] {
        take(engine, state, lease.message, taken);
    }
    state.processes[p] = Process::Idle;
}

fn lease_ends(state: &mut State, message: usize) {
    let Some(delivery) = &mut state.deliveries[message] else {
        return;
    };
    delivery.due_at = DueAt::Past;
    for lease in state.processes.iter_mut().filter_map(Process::lease_mut) {
        if lease.message == message && Some(lease.token) == delivery.lease_token {
            lease.has_ended = true;
            state.trouble.delays -= 1;
        }
    }
}

fn wait_ends(state: &mut State, message: usize) {
    if let Some(delivery) = &mut state.deliveries[message] {
        delivery.due_at = DueAt::Past;
    }
}
