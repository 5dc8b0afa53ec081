//! Delivery: what is stored is sent, once, in order, at its pace, and what fails is tried again.

mod ambiguity;
mod dead_letters;
mod fairness;
mod leases;
mod order;
mod outcomes;
mod pacing;
mod retries;
mod whatsapp;
