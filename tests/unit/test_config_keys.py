"""The keys that strategy files may have are those of the installed Accelerate."""

from zerogate.config.strategy_schema import AccelerateConfig, DeepSpeedPlugin, FsdpPlugin


def options(prefix: str) -> set[str]:
    from accelerate.commands.launch import launch_command_parser

    group = next(
        group for group in launch_command_parser()._action_groups if group.title.startswith(prefix)
    )
    return {action.dest for action in group._group_actions}


def test_deepspeed_keys_match_accelerate():
    assert options("DeepSpeed Arguments") == DeepSpeedPlugin.keys()


def test_fsdp_keys_match_accelerate():
    assert options("FSDP Arguments") == FsdpPlugin.keys()


def test_top_level_keys_match_accelerate():
    import dataclasses

    from accelerate.commands.config.config_args import ClusterConfig

    fields = {field.name for field in dataclasses.fields(ClusterConfig)}
    assert fields == AccelerateConfig.keys()
