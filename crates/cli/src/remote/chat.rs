//! `ai-semble chat`: a conversation. What was said is kept in memory only, never on disk.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use aisemble_client::Client;
use aisemble_protocol::completion::{ChatMessage, CompletionRequest};
use aisemble_protocol::limits;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::complete::{speed, stream};
use super::{apply, connect, message};
use crate::args::{Chat, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

const HELP: &str = "/reset forgets the conversation, /history shows it, /quit (or Ctrl-D) ends; \
                    Ctrl-C breaks an answer off";

/// Runs the command.
///
/// # Errors
/// When an answer cannot be had; on a terminal most are only told and the conversation goes on.
pub async fn run(global: &Global, options: Chat, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    let mut chat = Conversation::new(client, options, terminal);
    if std::io::stdin().is_terminal() {
        terminal.note(HELP);
        chat.with_person().await
    } else {
        chat.with_pipe().await
    }
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Reset,
    History,
    Help,
    Quit,
    Unknown(&'a str),
    Say(&'a str),
}

fn read_line(line: &str) -> Line<'_> {
    match line.trim() {
        "" => Line::Nothing,
        "/reset" => Line::Reset,
        "/history" => Line::History,
        "/help" => Line::Help,
        "/quit" | "/exit" => Line::Quit,
        // `//x` says `/x`.
        text if text.starts_with("//") => Line::Say(&text[1..]),
        text if text.starts_with('/') => Line::Unknown(text),
        text => Line::Say(text),
    }
}

struct Conversation {
    client: Client,
    options: Chat,
    terminal: Terminal,
    messages: Vec<ChatMessage>,
}

impl Conversation {
    fn new(client: Client, options: Chat, terminal: Terminal) -> Self {
        let mut chat = Self { client, options, terminal, messages: Vec::new() };
        chat.reset();
        chat
    }

    fn reset(&mut self) {
        let system = self.options.system.clone().map(|text| message("system", text));
        self.messages = system.into_iter().collect();
    }

    async fn with_person(&mut self) -> Outcome<()> {
        let broken = |error: ReadlineError| {
            Failure::new(Exit::Failed, "the terminal cannot be read").because(error)
        };
        let mut editor = DefaultEditor::new().map_err(broken)?;
        loop {
            // Reading keys blocks; it has a thread of its own.
            let read = tokio::task::spawn_blocking(move || {
                let line = editor.readline("> ");
                if let Ok(line) = &line {
                    let _ = editor.add_history_entry(line);
                }
                (editor, line)
            });
            let Ok((back, line)) = read.await else {
                return Err(Failure::new(Exit::Failed, "the terminal cannot be read"));
            };
            editor = back;
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(broken(error)),
            };
            match self.take(&line).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // A mistake or a break ends the answer, not the conversation.
                Err(failure) if failure.exit == Exit::NotRunning => return Err(failure),
                Err(failure) => crate::terminal::report_failure(&failure, false),
            }
        }
    }

    async fn with_pipe(&mut self) -> Outcome<()> {
        let limit = limits::PROMPT_BYTES_MAX as u64;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                std::io::stdin().lock().take(limit + 1).read_line(&mut line).map(|_| line)
            });
            let line = read.await.map_err(std::io::Error::other).flatten().map_err(|error| {
                Failure::new(Exit::Failed, "cannot read standard input").because(error)
            })?;
            if line.len() as u64 > limit {
                return Err(Failure::new(Exit::Usage, format!("a line is over {limit} bytes")));
            }
            if line.is_empty() || !self.take(&line).await? {
                return Ok(());
            }
        }
    }

    /// Does what the line says. Tells whether the conversation goes on.
    async fn take(&mut self, line: &str) -> Outcome<bool> {
        match read_line(line) {
            Line::Nothing => {}
            Line::Quit => return Ok(false),
            Line::Reset => {
                self.reset();
                self.terminal.note("Forgotten");
            }
            Line::Help => self.terminal.note(HELP),
            Line::Unknown(text) => self.terminal.note(&format!("There is no {text}. {HELP}")),
            Line::History => {
                for said in &self.messages {
                    self.terminal.note(&format!("{}: {}", said.role, said.content));
                }
            }
            Line::Say(text) => {
                let text = text.to_owned();
                self.say(text).await?;
            }
        }
        Ok(true)
    }

    async fn say(&mut self, text: String) -> Outcome<()> {
        self.messages.push(message("user", text));
        let answered = self.answer().await;
        if answered.is_err() {
            // Asked again, it should not be there twice.
            self.messages.pop();
        }
        answered
    }

    async fn answer(&mut self) -> Outcome<()> {
        let mut request =
            CompletionRequest { messages: Some(self.messages.clone()), ..Default::default() };
        apply(&self.options.sampling, &mut request);
        let result = if self.terminal.json {
            let mut silent = self.client.stream_completion(&request).await?;
            let result = last_result(&mut silent).await?;
            self.terminal.data(&result)?;
            result
        } else {
            let result = stream(&self.client, &request, self.terminal).await?;
            if self.terminal.stdout_is_terminal() {
                self.terminal.note(&speed(&result));
            }
            result
        };
        self.messages.push(message("assistant", result.text));
        Ok(())
    }
}

async fn last_result(
    events: &mut aisemble_client::CompletionEvents,
) -> Outcome<aisemble_protocol::completion::CompletionResult> {
    use aisemble_client::CompletionEvent;
    use futures_util::StreamExt as _;
    while let Some(event) = events.next().await {
        if let CompletionEvent::Result(result) = event? {
            return Ok(*result);
        }
    }
    Err(Failure::new(Exit::TryLater, "the answer ended early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_said() {
        assert_eq!(read_line("  \n"), Line::Nothing);
        assert_eq!(read_line("/reset\n"), Line::Reset);
        assert_eq!(read_line("/quit"), Line::Quit);
        assert_eq!(read_line("/rest"), Line::Unknown("/rest"));
        assert_eq!(read_line("//etc is a folder"), Line::Say("/etc is a folder"));
        assert_eq!(read_line("Hello\n"), Line::Say("Hello"));
    }
}
