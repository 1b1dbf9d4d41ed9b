//! Local mode: the services as child processes of `ai-semble up`, and the commands that look at
//! them and stop them.

pub mod child;
pub mod detach;
pub mod down;
mod gpus;
pub mod logs;
pub mod notices;
pub mod plan;
pub mod ready;
pub mod services;
mod settings;
pub mod state;
pub mod status;
pub mod supervise;
pub mod up;
