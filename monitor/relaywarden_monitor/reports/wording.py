"""wording - the words by which MTAs and people's programs give themselves away, in many languages.  Tables.

Each is one alternation of plain words: nothing in them repeats without bound, so a hostile text costs its length.

Sources: the texts in the programs' own sources and manuals (Exim, Postfix, qmail, Sendmail, Courier, Exchange, Domino,
GroupWise, MDaemon) and what their localised versions send.  Known limits: words age; what is not here is found by its form
(addresses before reasons, reply codes) or not at all.
"""

from __future__ import annotations

import re


def _any(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


# Subjects of non-delivery reports.
BOUNCE_SUBJECT = _any(
    r"undeliver(?:ed|able|ability)", r"(?:non|not)[- ]?deliver", r"undelivery",
    r"deliver(?:y|ing) (?:status )?(?:notification|report|fail\w*|error|problem|status|has failed)", r"mail ?delivery",
    r"mail(?:er)? (?:system )?(?:error|failure)", r"fail(?:ed|ure)\b.{0,30}(?:deliver|mail|message|notice)",
    r"returned (?:mail|e-?mail|to sender|message)", r"return(?:ed)?(?: mail)?: ", r"delivery (?:failed|to .{1,80} failed)",
    r"message (?:status - )?(?:undeliverable|not delivered|could not be delivered|delivery)",
    r"could not (?:be )?(?:deliver|send)", r"unable to deliver", r"permanent (?:delivery )?(?:fail|error)", r"rejected:",
    r"mail could not", r"bounced? (?:mail|message)", r"user unknown", r"unknown (?:user|address|recipient)",
    r"problems? (?:with|delivering)", r"error (?:sending|delivering|in|receiving)",
    r"mail(?:box)? (?:is )?(?:full|unavailable)", r"quota exceeded", r"over quota", r"failure notice", r"message you sent",
    r"cannot (?:send|deliver)", r"ndn:", r"dsn:", r"nondeliverable", r"invalid (?:recipient|address|mailbox)",
    r"unzustellbar", r"nicht zugestellt", r"nicht zustellbar", r"zustellung", r"unzustellbarkeit", r"fehlgeschlagen",
    r"r[eé]capitulatif", r"non remis", r"[eé]chec de (?:la )?(?:remise|distribution|livraison)", r"non distribu",
    r"remise impossible", r"no se (?:puede|ha podido|pudo) entregar", r"no entregado", r"devuelto", r"correo devuelto",
    r"n[aã]o (?:foi )?(?:entregue|p[oô]de)", r"falha na entrega", r"devolvid", r"mancata consegna", r"impossibile recapitare",
    r"onbestelbaar", r"niet (?:af|be)lever", r"kan ikke leveres", r"kunde inte levereras", r"oleverbar", r"недоставлен",
    r"не доставлен", r"ошибка доставки", r"невозможно доставить", r"доставк", r"niedostarcz", r"nie mo[zż]na dostarczy",
    r"nedoru[cč]", r"送信エラー", r"配信(?:エラー|不能|できません)", r"未送達", r"エラーメール", r"退信", r"系统退信",
    r"無法傳遞", r"无法投递", r"投递失败", r"반송", r"배달 ?실패",
)  # fmt: skip
# What such reports say in their text.
BOUNCE_TEXT = _any(
    r"this (?:message|report) was (?:created|generated) automatically by (?:the )?mail",
    r"this is the (?:mail|postfix|qmail|mailer|mail delivery|sendmail)", r"hi\. this is the",
    r"i'm sorry to have to inform you", r"could(?: |n't | not |not )be delivered", r"could not deliver",
    r"couldn't be delivered", r"was(?: not|n't) delivered", r"has not been delivered", r"not (?:be )?delivered to",
    r"cannot be delivered", r"can't be delivered",
    r"(?:delivery|message|mail) (?:to .{1,200} )?(?:has |was )?(?:permanently )?(?:failed|rejected|bounced|returned)",
    r"undeliverable", r"did not reach the following", r"did not reach some or all", r"unable to deliver",
    r"failed permanently", r"permanent (?:fatal )?(?:error|failure)", r"following address(?:\(es\)|es)? (?:failed|had)",
    r"transcript of session follows", r"address(?:es)? (?:not found|couldn't be found|that failed)", r"user unknown",
    r"unknown user", r"no such (?:user|mailbox|recipient|person)",
    r"mailbox (?:is )?(?:full|unavailable|not found|does not exist|disabled|inactive)",
    r"(?:exceeded|over|over its) (?:disk |mail(?:box)? )?quota",
    r"account (?:is |has been )?(?:disabled|inactive|suspended|closed)", r"does(?: not|n't) exist",
    r"not listed in (?:public name|domino)", r"recipient(?:'s)? (?:address )?(?:unknown|rejected|not found|refused)",
    r"address rejected", r"relay(?:ing)? (?:access )?denied", r"returned to (?:the )?sender", r"giving up",
    r"remote host said", r"host or domain name not found", r"delivery attempts? failed",
    r"konnte nicht (?:zugestellt|ausgeliefert)", r"nicht zugestellt", r"unbekannt", r"empf[aä]nger.{0,40}(?:nicht|unbekannt)",
    r"n'a pas pu [eê]tre", r"n'ont pas pu", r"n'est pas parvenu", r"adresse .{0,60}(?:inconnue|introuvable|n'existe)",
    r"bo[iî]te .{0,40}(?:pleine|inconnue)", r"no (?:se )?(?:pudo|ha podido|puede) (?:ser )?entreg", r"no existe",
    r"buz[oó]n .{0,30}(?:lleno|no)", r"n[aã]o (?:p[oô]de|foi|existe)", r"caixa postal",
    r"non [eè] stato (?:possibile|recapitato)", r"casella .{0,30}(?:piena|inesistente)",
    r"kon niet worden (?:afgeleverd|bezorgd)", r"не (?:может|могло|удалось|было|было?|была|существует|найден)", r"недоставлен",
    r"несуществующ", r"неизвестн", r"nie (?:zosta|mo|istnieje)", r"送信できません", r"配信できません",
    r"届けることができません", r"届きません", r"見つかりません", r"宛先不明", r"メールボックスが", r"受信できません",
    r"无法(?:投递|送达)", r"不存在", r"退回", r"존재하지", r"<{3} [45]\d\d", r"\b[45]\d\d[ -]#?[45]\.\d{1,3}\.\d{1,3}\b",
)  # fmt: skip
# It is not over yet: the MTA goes on trying.
DELAY = _any(
    r"will (?:be retried|continue to try|keep trying|retry|be re-?tried|be attempted)",
    r"still (?:being )?(?:trying|undelivered|queued|in (?:the )?queue)", r"has not yet been", r"not yet been delivered",
    r"this is a warning message only", r"no (?:further )?action is required on your part",
    r"(?:you )?do not need to re-?send", r"delivery (?:is |has been )?delayed", r"message (?:is )?delayed",
    r"could not (?:be )?(?:send|deliver\w*|sent).{0,40}(?:for|in) (?:the )?(?:past|last) ",
    r"delivery status notification \(delay\)", r"weiter versucht", r"verz[oö]gert", r"est retard[eé]", r"se ha retrasado",
    r"tentativ\w+ (?:de )?.{0,30}(?:contin|pours)", r"задерж", r"warning: could not send",
)  # fmt: skip
# Near an address these say that it is the one that failed.
LABEL = _any(
    r"(?:failed |final |original |intended |invalid |rejected |bad )?(?:recipients?|addressee|"
    r"e-?mail address(?:es)?|address(?:es)?|mailbox|user|account|envelope-to|rcpt|deliver(?:y|ed)? to|destinat\w+|"
    r"empf[aä]nger|adressat|destinat[aá]ri\w+|destinataire|destinatario|geadresseerde|получател\w*|адрес\w*|宛先|"
    r"収件者|收件人|поштов\w+)[^@\n]{0,60}$", r"\bto:?[^@\n]{0,20}$", r"\bfor:?[^@\n]{0,10}$", r"an?: ?$", r"rcpt to: ?<?$",
    r"^\W*$",
)  # fmt: skip
# Subjects and fields of automatic answers.
AUTO_SUBJECT = _any(
    r"^(?:auto(?:matic|mated|matisch\w*|mat)?(?:[- ]?(?:reply|response|answer|respon\w*|antwort|svar))\b)",
    r"^autor?e(?:ply|sponse|sponder)", r"^automatische antwort", r"^r[eé]ponse automatique", r"^respuesta autom",
    r"^resposta autom", r"^risposta automatica", r"^automatisch antwoord", r"^autosvar", r"^automaattinen vastaus",
    r"^автоответ", r"^автоматический ответ", r"^odpowied[zź] automatyczna", r"^autoodpov", r"^automatick\w+ odpov",
    r"^otomatik yan", r"^自動(?:返信|応答|回覆)", r"^自动回复", r"^자동 ?(?:응답|회신)", r"out of (?:the )?office",
    r"\booo\b", r"away from (?:my|the) (?:mail|office|desk)",
    r"(?:on|am on) (?:vacation|holiday|leave|annual leave|maternity leave)", r"^vacation\b", r"abwesenheit",
    r"nicht im b[uü]ro", r"au[sß]er haus", r"abwesend", r"absen(?:ce|t)\b", r"hors du bureau", r"fuera de (?:la )?oficina",
    r"fora do escrit", r"ausente", r"fuori (?:ufficio|sede)", r"afwezig", r"frånvaro", r"fravær", r"poza biurem",
    r"nieobecno", r"отсутств", r"в отпуске", r"不在", r"外出", r"休暇", r"부재중",
    r"^(?:read|lu|gelesen|le[ií]do|letto|gelezen|прочитано|既読|開封)\s?:", r"^not read:", r"return receipt", r"read receipt",
    r"disposition notification", r"lesebest[aä]tigung", r"thank you for (?:your|contacting) (?:e-?mail|message|us)",
    r"we (?:have )?received your (?:e-?mail|message|request)",
)  # fmt: skip
CHALLENGE = _any(
    r"confirm(?:ation)? (?:required|your (?:message|e-?mail|identity))", r"please confirm (?:your|that you)",
    r"requires? (?:verification|confirmation|your approval)", r"verify#", r"sender (?:verification|authenti\w+|approval)",
    r"challenge[- ]response", r"\bboxbe\b", r"spam ?arrest", r"\btmda\b", r"one-time (?:verification|confirmation)",
    r"white ?list request", r"waiting for (?:your )?(?:approval|verification)", r"action required to deliver",
)  # fmt: skip
ANSWER = _any(
    r"^\W{0,3}(?:re|aw|antw|sv|vs|rif|ref|odp|ynt|bls|回复|回覆|答复|ответ|fwd?|wg|tr|rv|enc|doorst|"
    r"vb)\s{0,3}(?:\[\d+\])?\s{0,3}[:\uff1a]",
)  # fmt: skip
# Someone's complaint without a feedback report.
COMPLAINT_SUBJECT = _any(
    r"complaint about (?:the )?message from", r"\babuse (?:report|complaint)", r"spam (?:report|complaint)",
    r"e-?mail feedback report", r"feedback (?:loop )?report", r"\[spamcop \(", r"spam reported",
    r"report(?:ed)? (?:of|as) (?:spam|abuse|phishing)",
    r"unsolicited (?:bulk |commercial )?e-?mail (?:report|complaint|from)", r"phishing report", r"beschwerde .{0,40}spam",
    r"plainte .{0,40}(?:spam|abus)", r"жалоба на спам",
)  # fmt: skip
COMPLAINT_TEXT = _any(
    r"this is an? (?:e-?mail |spam )*(?:abuse|complaint|feedback|spam) report",
    r"(?:user|recipient|member|customer|subscriber)s? .{0,60}(?:marked|reported|complained|classified|"
    r"identified) .{0,60}(?:spam|junk|abus|unsolicited|unwanted)",
    r"(?:was|been) (?:marked|reported|flagged) as (?:spam|junk|abuse)", r"spamcop\.net/", r"feedback-type:",
    r"mark(?:ed)? as spam", r"unsolicited (?:bulk |commercial )?e-?mail",
)  # fmt: skip
