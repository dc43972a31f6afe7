"""`servd export kubernetes`: writes manifests."""

from __future__ import annotations

import os
import re

import click

from servd.cli.export_source import export_source, report, strict_option, write_files
from servd.cli.render.output import say
from servd.cli.source import config_option
from servd.core.errors import UsageError

_VERSION = re.compile(r"v?1\.(\d{2,3})(\.\d+)?")
_OLDEST = 25


@click.command("kubernetes")
@config_option
@click.option("--image", required=True, metavar="IMAGE", help="Image with servd and the code.")
@click.option("--whole", is_flag=True, help="One pod with all services, instead of one for each.")
@click.option("--namespace", default="", metavar="NAME", help="Namespace of all objects.")
@click.option(
    "--kubernetes",
    "version",
    default="1.30",
    show_default=True,
    metavar="VERSION",
    help="Oldest version of the clusters.",
)
@click.option(
    "--hpa",
    type=click.Choice(["cpu", "in-flight", "keda"]),
    default="cpu",
    show_default=True,
    help="What scales a service with autoscale: CPU, or requests in flight (by the Prometheus"
    " adapter, or KEDA).",
)
@click.option("--service-monitor", is_flag=True, help="Add ServiceMonitors for Prometheus.")
@click.option(
    "--live-config",
    is_flag=True,
    help="Let pods reload a changed ConfigMap, instead of a rollout for each change.",
)
@click.option(
    "--kustomize",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write a folder for Kustomize instead of stdout.",
)
@strict_option
def command(
    config: str | None,
    image: str,
    whole: bool,
    namespace: str,
    version: str,
    hpa: str,
    service_monitor: bool,
    live_config: bool,
    kustomize: str | None,
    strict: bool,
) -> None:
    """Write Kubernetes manifests of the configuration.

    What is not carried over is listed on stderr, and so are the commands that create the Secrets.
    """
    found = _VERSION.fullmatch(version)
    if found is None or int(found[1]) < _OLDEST:
        raise UsageError(f"--kubernetes {version}: expected a version from 1.{_OLDEST}, as 1.33")
    source = export_source(config)
    from servd.export.containers.names import is_label, label
    from servd.export.containers.yaml_text import yaml_text
    from servd.export.kubernetes.kustomize import kustomization_files
    from servd.export.kubernetes.manifest import export
    from servd.export.kubernetes.options import KubernetesOptions, Scaling

    if namespace and not is_label(namespace):
        raise UsageError(f"--namespace {namespace}: expected lower case letters, digits and -")
    scaling: Scaling = "in-flight" if hpa == "in-flight" else "keda" if hpa == "keda" else "cpu"
    options = KubernetesOptions(
        image=image,
        name=label(os.path.basename(source.folder)),
        whole=whole,
        namespace=namespace,
        version=(1, int(found[1])),
        scaling=scaling,
        service_monitor=service_monitor,
        live_config=live_config,
    )
    exported = export(source, options)
    report(source, exported.diagnostics, strict=strict)
    if kustomize is None:
        click.echo(yaml_text(exported.objects), nl=False)
    else:
        write_files(kustomize, kustomization_files(exported, options))
    for line in exported.secret_commands:
        say(f"# create once: {line}")
