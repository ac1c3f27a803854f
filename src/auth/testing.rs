//! A sign-in service that answers from a list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Answer as Got, EndpointError, Secret, TokenEndpoint};

pub type Answer = Result<(u16, String), ()>;

#[derive(Debug, Default)]
pub struct Endpoint {
    pub answers: Mutex<VecDeque<Answer>>,
    pub forms: Mutex<Vec<Vec<(&'static str, String)>>>,
}

impl TokenEndpoint for Endpoint {
    fn post_form<'a>(
        &'a self,
        _url: &'a str,
        form: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<(u16, Bytes), EndpointError>> {
        let form = form.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
        self.forms.lock().expect("unpoisoned").push(form);
        let next = self.answers.lock().expect("unpoisoned").pop_front().expect("an expected request");
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            next.map(|(status, body)| (status, Bytes::from(body)))
                .map_err(|()| EndpointError(Arc::new(std::io::Error::other("unplugged"))))
        })
    }

    /// Takes the header's values for a form.
    fn get<'a>(
        &'a self,
        url: &'a str,
        headers: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<Got, EndpointError>> {
        let sent = self.post_form(url, headers);
        Box::pin(async move { sent.await.map(|(status, body)| Got { status, body, challenge: None }) })
    }
}
