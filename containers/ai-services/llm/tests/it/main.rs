//! The llm service with its real parts: the real model, the real model thread, a real socket.

mod model_file;
mod reference;
