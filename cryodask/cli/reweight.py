"""`cryodask reweight`: weights of structures that explain a set of images best."""

import json
from pathlib import Path

import click

from cryodask.cli.options import debug_option, json_option, overwrite_option


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="CSV to write.")
@click.option(
    "--tol", type=float, default=1e-3, show_default=True, help="Distance to the best, nats an image."
)
@click.option("--dirichlet", type=float, metavar="C", help="Dirichlet prior of 1 + C.")
@click.option(
    "--sizes", type=click.Path(path_type=Path), help="Cluster sizes: the start, and the prior's shape."
)
@click.option("--samples", type=click.IntRange(0), default=0, help="Draws for mean and standard deviation.")
@click.option("--negative", is_flag=True, help="The matrix holds negative log-likelihoods.")
@overwrite_option
@json_option
@debug_option
def reweight(
    source: Path,
    output: Path,
    tol: float,
    dirichlet: float | None,
    sizes: Path | None,
    samples: int,
    negative: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Weigh structures so that they explain the images of SOURCE.

    SOURCE is a result of `cryodask likelihood`, or a text matrix of rows images, columns structures.
    """
    from cryodask.io.files import require_new, written_whole
    from cryodask.jobs.likelihood.reweight import reweight as weigh

    require_new(output, overwrite=overwrite)
    table = weigh(source, tol=tol, dirichlet=dirichlet, sizes=sizes, samples=samples, negative=negative)
    with written_whole(output, overwrite=overwrite) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g")
    if as_json:
        click.echo(json.dumps({"output": str(output), **table.attrs}, indent=1))
        return
    click.echo(
        f"{table.attrs['iterations']} steps, gap {table.attrs['gap']:.2g}, "
        f"mean log-likelihood {table.attrs['mean_log_likelihood']:.6f}",
        err=True,
    )
    click.echo(str(output))
