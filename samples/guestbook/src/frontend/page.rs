//! The HTML. Everything that visitors wrote is escaped.

use std::fmt;

use crate::api::Contents;

/// The guestbook: greeting, entries with the newest first, and a form.
pub fn guestbook(contents: &Contents, pod: &str) -> String {
    let greeting = Escaped(&contents.greeting);
    let mut entries = String::new();
    for entry in contents.entries.iter().rev() {
        let (author, text) = (Escaped(&entry.author), Escaped(&entry.text));
        entries.push_str(&format!(
            "<li value=\"{}\"><p>{text}</p><cite>{author}</cite></li>\n",
            entry.id
        ));
    }
    if entries.is_empty() {
        entries.push_str("<li>Nobody has written anything yet.</li>\n");
    }
    frame(
        pod,
        &format!(
            "<h1>{greeting}</h1>\n\
             <form method=\"post\" action=\"/entries\">\n\
             <input name=\"author\" maxlength=\"64\" placeholder=\"Your name\" aria-label=\"Your name\">\n\
             <input name=\"text\" maxlength=\"500\" placeholder=\"Your words\" aria-label=\"Your words\" required>\n\
             <button>Sign</button>\n\
             </form>\n\
             <ol>\n{entries}</ol>\n"
        ),
    )
}

/// A page that says what went wrong.
pub fn problem(problem: &str, pod: &str) -> String {
    let problem = Escaped(problem);
    frame(
        pod,
        &format!(
            "<h1>That didn't work</h1>\n<p>{problem}</p>\n<p><a href=\"/\">Back to the guestbook</a></p>\n"
        ),
    )
}

fn frame(pod: &str, contents: &str) -> String {
    let pod = Escaped(pod);
    format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n\
         <meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Guestbook</title>\n\
         <style>\n\
         body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto; padding: 0 1rem }}\n\
         li {{ margin: 1rem 0 }} li p {{ margin: 0 }} cite, footer {{ color: gray }}\n\
         input, button {{ font: inherit; padding: .3rem .5rem }}\n\
         </style>\n\
         {contents}\
         <footer>Answered by {pod}</footer>\n\
         </html>\n"
    )
}

/// Text that stands for itself in HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
