"""`servd export ray`: writes the configuration of Ray Serve."""

from __future__ import annotations

import os

import click

from servd.cli.export_source import export_source, report, strict_option
from servd.cli.ray.options import cpus_option, working_dir_option
from servd.cli.render.output import write_new
from servd.cli.source import config_option
from servd.core.errors import UsageError

_IN_THE_IMAGE = "local:///app"


@click.command("ray")
@config_option
@click.option(
    "-o", "--output", default="-", metavar="FILE", help="File to write.  [default: stdout]"
)
@working_dir_option
@cpus_option
@click.option("--kuberay", is_flag=True, help="Write a RayService for KubeRay.")
@click.option(
    "--image", default="", metavar="IMAGE", help="With --kuberay: image with Ray, servd, the code."
)
@strict_option
def command(
    config: str | None,
    output: str,
    working_dir: str,
    cpus: float,
    kuberay: bool,
    image: str,
    strict: bool,
) -> None:
    """Write the configuration of Ray Serve: an application for each service.

    What is not carried over is listed on stderr. servd deploy applies it to a cluster.
    """
    if kuberay != bool(image):
        raise UsageError("--kuberay needs --image, and --image needs --kuberay")
    source = export_source(config)
    from servd.cli.ray.package import package_of
    from servd.export.containers.names import label
    from servd.export.containers.yaml_text import yaml_text
    from servd.export.ray.document import export, ray_service
    from servd.export.ray.options import RayOptions

    where = working_dir or (_IN_THE_IMAGE if kuberay else f"local://{source.folder}")
    options = RayOptions(where, package_of(source).digest, cpus)
    exported = export(source, options)
    report(source, exported.diagnostics, strict=strict)
    document = exported.document
    if kuberay:
        name = label(os.path.basename(source.folder))
        document = ray_service(exported, source, name, image)
    write_new(output, yaml_text([document]), force=True)
