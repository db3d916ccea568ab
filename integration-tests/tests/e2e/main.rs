//! End-to-end tests: one binary, one module a theme. Each test starts the real program in a directory of its own.

#[cfg(test)]
mod algorithms;
#[cfg(test)]
mod api;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod checker_catches;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod content_type;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod flow_control;
#[cfg(test)]
mod harness_itself;
#[cfg(test)]
mod inbox;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod overwrite;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod story;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod webhooks;
