//! The database: what it must be, what the gateway makes of it, and what happens when it is not there.

mod batches;
mod cluster;
mod connections;
mod embedded;
mod embedded_gateway;
mod fitness;
mod growth;
mod migrating;
mod poolers;
mod replication;
mod roles;
mod schemas;
