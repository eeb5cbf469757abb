"""settings - the constants of the volume patterns, with what each of them means.  Plain values.

Weights are powers of ten of doubt: a weight of 2 says that an honest tenant shows as much about once in a hundred times.  They
are capped, because no model of honest mail deserves more trust.  Spans are seconds, shares 0 to 1.

What an operator may change of it is in plans.NAME.patterns: the ramp of new tenants (start, growth).
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How a tenant's normal is learned."""

    settle: float = 14 * DAY  # before that there is no normal of its own; the ramp holds
    settle_names: float = 3 * DAY  # before that no network or From domain is new
    ramp_start: float = 1000.0  # recipients a day that a tenant may send on its first day without being noticed
    ramp_growth: float = 1.4  # and so many times more each day, as SendGrid warms an address up
    shrink: float = 2.0  # a coarser profile counts like so many weeks of an hour's own data
    memory: int = 5  # weeks after which an hour of the week is half forgotten, about
    clip: float = 4.0  # an hour teaches no more than so many times what was expected
    clip_watched: float = 2.0  # and no more than this while the tenant is watched; nothing from SLOWED on
    clip_low: float = 3.0  # and no less than this part of it: a quiet week does not make Monday a burst
    slack: float = 20.0  # recipients an hour that may be learned beyond these, so that small tenants can grow
    trend_most: float = 2.5  # growth that is followed at once; more has to be learned hour by hour
    dispersion: float = 0.5  # variance beyond chance in units of the squared mean, until it is learned
    dispersion_least: float = 0.05
    dispersion_most: float = 4.0
    peak_half_life: float = 60 * DAY  # of the highest counts of the past: longer than from one month's end to the next


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """When a signal speaks, and how much it may weigh."""

    floor: float = 30.0  # fewer recipients in a span say nothing
    floor_volume: float = 60.0  # and fewer than this are no volume
    rise: float = 1.5  # volume begins at so many times the highest count of the past
    surprise: float = 4.0  # powers of ten of improbability from which a count is no chance
    volume_most: float = 3.5
    ramp_most: float = 2.0  # weight of volume beyond the ramp of a new tenant
    drift_slack: float = 0.5  # the slow sum counts what is beyond 1.5 times normal
    drift_clip: float = 4.0  # an hour adds no more than so many times normal to it: bursts are not slow
    drift_limit: float = 0.6  # normal days of excess at which the slow sum weighs 1
    drift_floor: float = 20.0  # recipients that a normal day has at least, for the slow sum
    reach_most: float = 2.0  # new recipients
    spread_most: float = 1.5  # other recipient domains than usual
    template_most: float = 1.0  # templates never seen before
    fanout_floor: float = 30.0  # recipients of one template within three hours that are nothing
    fanout_most: float = 2.0
    bulk_from: float = 0.5  # mean content score at which content begins to weigh; 1 for each 0.1 above it
    bulk_rise: float = 0.2  # of all mail: so far above the tenant's usual mean
    bulk_most: float = 3.0
    bulk_sample: float = 40.0  # recipients of a template before its content score counts
    score_rise: float = 4.0  # points of rspamd's score above the usual mean
    score_most: float = 1.0
    name_chance: float = 0.02  # chance of a day with something new, until it is learned
    network_most: float = 1.7
    from_most: float = 1.7
    other_name_most: float = 0.8  # HELO names and logins
    invalid_from: float = 0.04  # shares that any tenant may have
    invalid_hint: float = 0.01  # a share that supports other evidence, though it does not convict
    hint_most: float = 1.2
    suppressed_from: float = 0.01
    blocked_from: float = 0.05
    complained_from: float = 0.003
    harm_most: float = 3.0
    refused_most: float = 0.8  # refused by limits: a retry storm is no guilt


@dataclass(frozen=True, slots=True)
class LadderSettings:
    """From evidence to steps; how long these last (seconds)."""

    strong: float = 1.0  # weight from which a kind of evidence counts as one
    named: float = 2.1  # weight of new names that is more than one new network
    familiar: float = 0.7  # weight of content that supports, though it does not convict
    watched: float = 2.0  # sums of weights
    alone: float = 2.4  # one kind alone that is enough to watch
    slowed: float = 3.5
    harmful: float = 1.5  # weight of harm that convicts with one circumstance
    broadcast: float = 1.5  # weight of content that makes a fan-out a broadcast
    flood: float = 3.5  # weight of volume that slows, if the recipients are new too
    held: float = 6.0
    suspended: float = 8.0
    relief: float = 0.6  # a step is prolonged at so much of what it took to reach it
    persist_broadcast: float = 15.0  # how long a broadcast may go on after it was diverted, before it is HELD
    goes_on: float = 10.0  # messages' worth of marketing in the last minute that are a broadcast which goes on
    persist: float = 600.0  # how long HELD must last before SUSPENDED
    hold_watched: float = HOUR
    hold_slowed: float = HOUR
    hold_diverted: float = 4 * HOUR
    hold_held: float = 4 * HOUR
    hold_suspended: float = DAY
    longest: float = WEEK
    repeat: float = WEEK  # a step within so long after the last one ended counts as its repetition


@dataclass(frozen=True, slots=True)
class PatternSettings:
    """All of it."""

    learning: LearningSettings = LearningSettings()
    signals: SignalSettings = SignalSettings()
    ladder: LadderSettings = LadderSettings()
