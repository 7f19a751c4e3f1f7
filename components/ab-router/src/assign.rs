//! The assignment door: `spinfer:experiment/assignment`.

use spinfer_experiment::{Exclusion, Variant};

use crate::AbRouter;
use crate::bindings::exports::spinfer::experiment::assignment as wit;
use crate::experiments::{Decision, Request, with};

impl wit::Guest for AbRouter {
    fn needed_headers() -> Vec<String> {
        with(|experiments| experiments.needed_headers().to_vec()).unwrap_or_default()
    }

    fn needs_body() -> bool {
        with(|experiments| experiments.needs_body()).unwrap_or(false)
    }

    fn assign(request: wit::Request) -> Result<wit::Assigned, wit::Refusal> {
        let headers: Vec<_> =
            request.headers.into_iter().map(|header| (header.index, header.value)).collect();
        let path = request.path_with_query;
        let request =
            Request { path: &path, headers: &headers, body: &request.body, secure: request.secure };
        let assigned = with(|experiments| {
            let Decision { assignment, unit, set_cookie } = experiments.assign(request)?;
            let experiment = assignment.experiment;
            let destination = |variant: &Variant| wit::Destination {
                variant: variant.name.clone(),
                component: variant.component.clone(),
                path_with_query: experiment.path_of(variant, &path),
            };
            Ok(wit::Assigned {
                experiment: experiment.name.clone(),
                destination: destination(assignment.variant),
                exclusion: assignment.exclusion().map(wit::Exclusion::from),
                exposure: wit::Exposure { unit, propensity: assignment.propensity() },
                shadows: assignment.shadows().map(destination).collect(),
                fallback: assignment.fallback().map(destination),
                set_cookie,
            })
        });
        assigned
            .and_then(|assigned| assigned)
            .map_err(|refusal| wit::Refusal { status: refusal.status, message: refusal.message })
    }
}

impl From<Exclusion> for wit::Exclusion {
    fn from(exclusion: Exclusion) -> Self {
        match exclusion {
            Exclusion::NotStarted => Self::NotStarted,
            Exclusion::NoUnit => Self::NoUnit,
            Exclusion::Holdout => Self::Holdout,
            Exclusion::Namespace => Self::Namespace,
            Exclusion::Target => Self::Target,
        }
    }
}
