"""lexicon - words that tell promotion from business with one person, in nine languages.  A table.

An entry is a word or two neighbouring words, in lower case; entries are separated by `;`.  Words are compared by their first
STEM letters (`confirm`, `confirmation`, `confirmación` are one), so an entry stands for its inflections too.  A word that both
kinds use (order, account) stands here in company: `your order`, `order now`.

Languages: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, and the commonest words of the Scandinavian
ones.
"""

from __future__ import annotations

STEM = 7

_TABLE: dict[str, str] = {
    "promo": """
fly to; valuation; your copy; frühlingskarte; plant offert; adventure; adventures; trips from; brochure; awaits; select
items; exclusions; summer; easter; christmas; halloween; valentine; mother s; father s; autumn; spring; winter; xmas;
holidays; sommer; frühling; herbst; weihnachten; ostern; noël; printemps; automne; hiver; verano; navidad; primavera;
otoño; natale; autunno; verão; outono; zomer; kerst; herfst; lato; święta; wiosna; wiosenna; jesień; sommar; going fast;
everything for; cheaper; sklepach; en magasin; probefahren; prämie; hampers; better price; loved by; triple points;
coupons; vouchers; discounts; in store; fill your; your basket; first look; everyone else; presale; just announced;
rejoin; free entry; dresses; suits; sandals; the collection; our collection; been selected; vestidos; kleider; robes;
solo fino; invece di; anuidade; statt nur; au lieu; em vez; zamiast; cadeau bij; shelves; the season; use code; at
checkout; combined with; other offers; just for; double points; members save; your points; next order; next purchase;
new drop; before they; free returns; surprise; prossimo acquisto; próxima compra; prochaine commande; nächste
bestellung; nächsten einkauf; volgende bestelling; kolejne zakupy; fidélité; maak kans; favoriter; hela helgen; from £;
shop by; ranges from; exclusive to; win $; ohne versandkosten; punkte; frete gratuito; meia noite; menos de; meno di;
half off; partire da; vanaf; zu gewinnen; partir de; à partir; dès; cash back; cashback; trade in; packages from; our
pick; stylists; le menu; ab nur; schnell sein; lohnt sich; op is; selection; sélection; half price; price drop; was now;
low rates; pre approved; pre selected; a month; per month; free spins; spins; casino; slots; betting; crypto; investment
opportunity; backlinks; seo; pills; viagra; weight loss; limited stock; limited spots; limited edition; stock up; double
perks; free gift; free delivery; complimentary; treat yourself; getaway; escape; test drive; showroom; dealer; new in;
fresh; styles; outfit; lookbook; gift guide; gifts; holiday gift; spring sale; hot deals; super sale; season sale; buy
one; get one; one free; from only; starting at; prices from; save more; big savings; today only; hours only; days left;
only today; offre spéciale; nur solange; solange der; premières; nouvelle saison; primera compra; solo hoy; sólo hoy;
solo oggi; só hoje; alleen vandaag; alleen dit; tylko dziś; tylko dzisiaj; taniej o; promocyjna; sale; sales; discount;
coupon; voucher; promo; promotion; deals; deal; clearance; bargain; savings; save up; off your; off everything; free
shipping; special offer; exclusive; limited time; last chance; black friday; cyber monday; hurry; while stocks; gift
card; best price; lowest price; your discount; early bird; early access; bestsellers; new arrivals; just in; back in;
sold out; flash; offer ends; ends tonight; ends soon; ends sunday; don miss; members only; bonus; jackpot; win a;
giveaway; redeem; loyalty; rewards; bogo; new collection; must have; favorites; favourites; trending; markdowns;
unbeatable; offers; selling fast; final hours; ends midnight; this weekend; rabatt; rabatte; sonderangebot; angebote;
schnäppchen; gutschein; rabattcode; sparen; spare; nur heute; nur noch; gratis; kostenlos; aktion; ausverkauf;
schlussverkauf; neuheiten; jetzt sichern; reduziert; gewinnspiel; gewinne; vorteil; exklusiv; lieblings; neue
kollektion; bis zu; letzte chance; greif zu; highlights; soldes; remise; réduction; offre; offres; profitez; bons plans;
code promo; livraison offerte; gratuit; dernière chance; dernières heures; vente privée; économisez; nouveautés;
nouvelle collection; cadeau; jeu concours; jusqu à; à ne; petits prix; coup de; rebajas; descuento; oferta; ofertas;
promoción; cupón; ahorra; envío gratis; última oportunidad; últimas horas; últimos días; novedades; nueva colección;
aprovecha; no te; sorteo; regalo; hasta un; precios; sconto; sconti; saldi; offerta; offerte; promozione; risparmia;
spedizione gratuita; ultima occasione; ultime ore; ultimi giorni; esclusiva; novità; nuova collezione; approfitta; non
perdere; fino al; codice sconto; buono; desconto; promoção; promoções; cupom; cupão; economize; poupe; frete grátis;
portes grátis; grátis; última chance; novidades; nova coleção; aproveite; não perca; sorteio; liquidação; até às;
korting; aanbieding; actie; uitverkoop; bespaar; laatste kans; nog maar; nieuwe collectie; mis het; voordeel; winactie;
tijdelijk; opruiming; rabat; rabatu; rabaty; zniżka; zniżki; promocja; wyprzedaż; okazja; okazje; oferty; oszczędź;
darmowa dostawa; za darmo; ostatnia szansa; ostatnie godziny; ekskluzywne; nowości; nowa kolekcja; skorzystaj; nie
przegap; konkurs; kod rabatowy; taniej; rea; rabattkod; erbjudande; tilbud; udsalg; salg; spar; fri frakt; sista
chansen; sidste chance; siste sjanse; kampanj; kampagne""",
    "cta": """
order your; order a; search flights; grab a; reservieren sie; visitez; sign me; say goodbye; start free; rsvp; enroll
by; enroll now; enrol now; voir la; odbierz; meld je; kom naar; komm vorbei; venez; ven a; come by; bring a; update now;
watch lesson; find events; visit a; visit the; pick a; schau dir; schau es; tickets holen; ver todo; iscriviti al;
shoppen; peça já; conheça; see the; ver todos; voir tout; vedi tutti; bekijk het; zobacz nowości; register for; reserve
a; reserve now; go premium; take the; start now; start here; count me; read it; read our; meet the; say hello; read now;
get inspired; jetzt starten; jetzt teilnehmen; jetzt lesen; zur umfrage; zum angebot; je participe; je réserve; voir
les; lire l; ver programa; consigue tu; empieza; experimente; experimenta; inizia; provalo; prova; doe mee; zapisuję;
wypróbuj; weź udział; prova nu; prøv nu; shop women; shop men; shop dresses; order ahead; get tickets; buy tickets; book
your; book early; book by; play now; apply now; apply today; see how; see what; watch the; start survey; try free;
explore the; visit our; visit us; find a; learn how; download now; download the; get it; treat your; donate $; give
today; chip in; pledge; see who; shop now; buy now; order now; order today; shop the; shop all; shop our; shop here;
start shopping; shop today; shop new; browse; discover; learn more; read more; find out; see more; see all; view all;
upgrade now; upgrade today; try it; try for; get started; get yours; claim your; claim now; grab; explore; book now;
sign up; register now; save your; save my; reserve your; join now; join us; donate; donate now; watch now; listen now;
add to; start your; give it; check out; subscribe; become a; zum shop; jetzt shoppen; jetzt kaufen; jetzt bestellen;
jetzt entdecken; entdecken; mehr erfahren; weiterlesen; jetzt buchen; jetzt anmelden; jetzt sichern; jetzt spenden; mehr
lesen; stöbern; jetzt testen; jetzt ansehen; jetzt mitmachen; jetzt registrieren; découvrir; j en; en profiter; acheter;
je découvre; en savoir; lire la; lire plus; réserver maintenant; je m; commander maintenant; inscrivez vous; je fais;
shopper; comprar ahora; compra ahora; compra ya; ver más; leer más; descubre; descúbrelo; saber más; reserva ahora;
apúntate; comprar; lo quiero; inscríbete; acquista ora; compra ora; scopri; scoprilo; leggi di; leggi tutto; scopri di;
prenota ora; iscriviti; vai allo; dona ora; comprar agora; compre agora; compre já; saiba mais; leia mais; ver mais;
reserve já; inscreva se; garanta; eu quero; shop nu; koop nu; bestel nu; ontdek; ontdekken; lees meer; meer weten;
bekijk de; bekijk alle; boek nu; schrijf je; doneer; kup teraz; kupuję; sprawdź; zobacz więcej; dowiedz się; odkryj;
czytaj więcej; czytaj dalej; zamów teraz; zapisz się; do sklepu; köp nu; handla nu; läs mer; upptäck; køb nu; læs mere;
kjøp nå; les mer; oppdag; opdag""",
    "news": """
cookbook; bookshop; talks; sponsors; portes ouvertes; entrée libre; most liked; founders; tutorial; the latest; say hi;
come and; forward this; was forwarded; new listings; see listings; more listings; spotify; libraire; romans; lectures;
raffle; open day; open studio; everyone welcome; weekly report; resumen semanal; lo más; più letti; incontri; ingresso
libero; rondleiding; most read; curriculum; scholarships; applicants; state of; neighbours; most loved; until next; this
letter; support this; her story; his story; their story; lesson; lessons; online course; you learned; master class; what
going; going on; booth; trade show; im programm; filme; lo nuevo; corso; kurs; curso; chers voisins; pique nique;
assemblée; on vous; parish; borough; borough council; presented by; doors at; lezioni; lektion; live session; live demo;
q a; our experts; lineup; hackathon; office hours; meet our; congrats; new post; previous posts; potluck; minutes of;
the recording; panel; panelists; warsztat; zapraszamy; liczba miejsc; charlas; talleres; ateliers; conférence;
fragerunde; platz sichern; programm; bootcamp; live stream; this year; year in; hi folks; hi all; hello all; hey
everyone; hi everyone; hello everyone; dear all; liebe alle; inbox; must reads; what happening; pokażemy; vårens;
månadens; this season; new season; programme; exhibition; concert; tour dates; tickets on; premiere; volunteer; dear
supporters; dear friend; dear friends; dear parents; dear members; impact; our mission; sign the; sign our; vote; good
morning; what we; we read; reading list; long read; interview; essay; column; links we; top 10; top ten; ways to; tips
for; how to; near you; new jobs; job alert; new homes; homes for; properties; people you; suggestions; trending in; who
viewed; your network; guten morgen; lesetipp; buchtipp; konzert; ausstellung; spendenaktion; bonjour à; exposition;
exposiciones; conciertos; mostra; mostre; exposições; tentoonstelling; goedemorgen; belangrijkste; wystawa; koncert;
gratis webinar; bezpłatny webinar; newsletter; digest; weekly; this week; this month; monthly; roundup; round up; in
this; issue no; edition; editorial; headlines; top stories; our blog; blog; blog post; article; podcast; webinar;
conference; workshop; speakers; agenda; keynote; save the; event; events; meetup; festival; tips; recipes; recipe;
inspiration; stories; story; our latest; latest news; latest posts; this issue; min read; new episode; case study;
ebook; whitepaper; guide; fundraising; campaign; petition; community news; our work; gallery; portfolio; our services;
recommended for; you may; you might; handpicked; curated; picks; highlights; sponsored; team behind; diese woche; diesen
monat; neuigkeiten; ausgabe; aktuelles; veranstaltung; einladung; rezepte; tipps; wochenrückblick; monatlich;
wöchentlich; themen; beitrag; artikel lesen; magazin; neues aus; liebe leser; liebe leserinnen; rundbrief; im überblick;
cette semaine; ce mois; actualités; actus; lettre d; infolettre; édition; événement; recettes; conseils; la une; chers
abonnés; au programme; chers lecteurs; esta semana; este mes; noticias; boletín; edición; evento; eventos; recetas;
consejos; seminario; artículo; en este; questa settimana; questo mese; notizie; edizione; eventi; ricette; ricetta;
consigli; articolo; in evidenza; rassegna; nesta semana; este mês; notícias; edição; receitas; dicas; artigo; artigos;
novidade; boletim; destaques; deze week; deze maand; nieuwsbrief; nieuws; evenement; recepten; recept; artikel; beste
lezer; uitgelicht; w tym; ten tydzień; wydarzenie; przepisy; porady; artykuł; biuletyn; aktualności; drodzy czytelnicy;
wydanie; nyhetsbrev; nyhedsbrev; denna vecka; denne uge; nyheter; nyheder; veckans; ugens; ukens; evenemang""",
    "engage": """
your voice; have your; wishlist; wish list; a review; write review; first order; one question; scale of; likely is; hit
reply; even geleden; is geleden; say sorry; d tell; to 10; your input; love your; short questions; still want; keep me;
hear from; opened our; your week; your stats; your year; vragenlijst; onderzoek; rispondere; domande; preguntas;
perguntas; few questions; quick questions; minute survey; take our; minute quiz; enkät; spørgeskema; cuéntanos; dicci;
conte nos; vertel ons; kurze fragen; quelques questions; noch da; encore là; survey; feedback; your opinion; rate us;
rate your; rate our; how likely; how satisfied; satisfied; recommend us; recommend you; your thoughts; we miss; miss
you; missed you; come back; happy birthday; your birthday; birthday; anniversary; refer a; invite friends; tell us; left
something; your cart; waiting in; still interested; haven been; long time; review your; leave a; cart misses; forget
something; still thinking; you left; umfrage; deine meinung; ihre meinung; meinung; bewerten; bewertung;
weiterempfehlen; wir vermissen; vermissen; geburtstag; zufrieden; warenkorb; freunde werben; wie zufrieden; votre avis;
avis; enquête; sondage; satisfait; recommander; vous nous; nous manquez; votre panier; panier; parrainez; encuesta; tu
opinión; su opinión; opinión; valora; te echamos; echamos de; cumpleaños; satisfecho; tu carrito; carrito;
recomendarías; te extrañamos; sondaggio; tua opinione; opinione; recensione; ci manchi; compleanno; soddisfatto;
carrello; consiglieresti; pesquisa; sua opinião; tua opinião; opinião; avalie; sentimos sua; sentimos a; saudade;
aniversário; carrinho; inquérito; jouw mening; uw mening; mening; beoordeel; we missen; missen je; verjaardag; tevreden;
winkelwagen; winkelmandje; ankieta; ankietę; twoja opinia; opinię; opinia; oceń; tęsknimy; urodziny; zadowolony; koszyk;
koszyku; polecić; undersökning; undersøgelse; din åsikt; din mening; vi saknar; vi savner; födelsedag; fødselsdag;
bursdag; kundvagn""",
    "product": """
goodbye to; no card; sense to; starting today; make sense; helps you; built for; trusted by; account manager; customers
are; walkthrough; my calendar; ever is; we rebuilt; update ever; free template; checklist; day trial; automate;
automates; from scratch; best practices; playbook; produktinfos; power users; started with; like yours; get up; teams
like; companies like; welcome series; faster exports; modo oscuro; modo escuro; modalità scura; dunkler modus;
nouveautés de; novidades de; novedades de; novità di; vous aider; app store; latest version; version 2; smarter;
redesigned; reimagined; all new; brand new; our senior; our developers; developers are; hiring; shall i; send profiles;
quoi de; nouvelle application; mode sombre; dark mode; mobile app; in review; doubled; full story; sin matrícula; 3
ways; tip of; pro tip; most out; compare plans; choose a; upgrade your; worth a; 15 min; min chat; follow up; we help;
help teams; helped companies; book a; pipeline; outreach; marketing; s new; new features; introducing; announcing; now
available; changelog; release notes; product update; product updates; roadmap; coming soon; shipped this; upgrade to;
premium; go pro; unlimited; do more; get more; power up; integrations; we launched; just launched; early access; beta;
our plans; our customers; demo; free consultation; faster than; time for; better than; schedule a; quick call; quick
question; reaching out; your business; grow your; boost; roi; leads; neue funktionen; neu bei; jetzt verfügbar; wir
stellen; vorstellen; upgrade; mehr umsatz; neuerungen; nouvelles fonctionnalités; nouveau; découvrez notre; désormais
disponible; passez à; passez au; nous lançons; nuevas funciones; presentamos; ya disponible; lanzamos; mejora tu; pásate
a; nuove funzionalità; ora disponibile; passa a; lanciamo; novos recursos; novas funcionalidades; apresentamos; já
disponível; lançamos; lançamento; nieuwe functies; nu beschikbaar; wij presenteren; stap over; nowe funkcje;
przedstawiamy; już dostępne; przejdź na""",
    "footer": """
trouble viewing; not displaying; email not; rather not; mail preferences; keine mails; recibir más; quero receber;
austragen; unsubscribe; opt out; view in; view online; view this; web version; in browser; read online; read on; email
preferences; manage preferences; manage subscription; manage your; update preferences; you subscribed; subscribed to;
receiving this; receive these; received this; mailing list; no longer; stop receiving; further emails; these emails;
abmelden; abbestellen; abmeldung; newsletter abmelden; im browser; online ansehen; webversion; online version; keine
weiteren; désabonner; désinscrire; ne plus; navigateur; version en; préférences; darse de; darte de; date de; cancelar
suscripción; cancelar la; dejar de; navegador; versión web; no deseas; preferencias; baja de; disiscriviti; annulla
iscrizione; cancellarti; cancella iscrizione; nel browser; tuo browser; versione web; non ricevere; descadastrar;
cancelar inscrição; cancelar a; cancelar subscrição; deixar de; não deseja; versão web; preferências; afmelden;
uitschrijven; schrijf uit; online versie; voorkeuren; wypisz; wypisać; zrezygnuj; anuluj subskrypcję; przeglądarce;
wersja online; nie chcesz; avprenumerera; avregistrera; afmeld; avmeld; webbläsare; webbversion""",
    "order": """
pre order; preorder; be sent; will ship; we charge; your kit; got here; dein paket; kommt heute; sendung; is being; are
being; being printed; being packed; being made; your patience; front door; ships tomorrow; post office; rma; we packed;
is packed; your box; deinen einkauf; ihren einkauf; votre achat; tuo acquisto; sua compra; je aankoop; twoje zakupy; for
collection; collection point; collect it; to collect; collect your; packing; packed; versand; ship date; its way; just
left; its journey; vient d; tagit emot; packar; skickas; er på; på väg; in viaggio; in consegna; em trânsito; onderweg;
w drodze; en camino; en route; in transit; shipping update; delivery update; label created; on its; arrives; arriving;
will arrive; left with; was shipped; we shipped; return request; backorder; shipment; consignment; parcel locker; your
order; order number; order no; order id; order confirmation; order details; order summary; order total; order placed;
order has; order is; order was; my order; track order; order status; order date; order shipped; shipped; dispatched; out
for; has been; delivered; delivery date; estimated delivery; expected delivery; tracking number; tracking; parcel; your
package; package; courier; carrier; track your; track shipment; shipping address; delivery address; billing address;
items ordered; qty; quantity; subtotal; pick up; pickup; return label; your return; refund; refunded; preparing your;
bestellnummer; ihre bestellung; deine bestellung; auftragsbestätigung; bestellung ist; bestellung wurde; sendungsnummer;
versandbestätigung; versendet; verschickt; unterwegs; paket; zustellung; zugestellt; lieferadresse; lieferung;
voraussichtlich; zwischensumme; menge; rücksendung; erstattung; abholbereit; lieferschein; auslieferung; votre commande;
numéro de; commande n; confirmation de; commande a; expédiée; colis; livraison prévue; adresse de; suivi de; suivre mon;
suivre votre; livrée; livré; sous total; remboursement; retour; retrait; tu pedido; su pedido; número de; pedido n;
pedido ha; pedido está; pedido confirmado; enviado; paquete; entregado; entrega estimada; dirección de; seguimiento;
cantidad; reembolso; devolución; tuo ordine; suo ordine; numero ordine; ordine n; numero d; ordine è; conferma ordine;
conferma d; spedito; pacco; consegnato; consegna prevista; indirizzo di; tracciamento; corriere; rimborso; reso; seu
pedido; sua encomenda; encomenda; número do; número da; pedido foi; confirmação do; enviada; entregue; entrega prevista;
endereço de; rastreio; rastreamento; transportadora; quantidade; código de; je bestelling; uw bestelling; jouw
bestelling; bestelnummer; bestelling is; bestelling met; orderbevestiging; bestelbevestiging; verzonden; pakket;
bezorgd; bezorging; bezorgadres; track trace; verzendadres; aantal; terugbetaling; twoje zamówienie; zamówienie nr;
numer zamówienia; zamówienia; zamówienie zostało; potwierdzenie zamówienia; wysłane; wysłana; przesyłka; paczka; paczkę;
dostawy; adres dostawy; kurier; śledzenia; śledź; ilość; zwrot; numer przesyłki; din beställning; din order;
ordernummer; ordrenummer; din ordre; din bestilling; ordrebekræftelse; skickats; afsendt; paketet; pakken; leverans;
leveringsadresse""",
    "payment": """
a refusé; banque a; refusé; tu banco; rechazó; método de; refund on; card you; your donation; goods or; your taxes;
update card; your bank; new card; been renewed; was renewed; renewed; annual plan; drops to; t process; not process;
attempt; bezahlt; paypal; rimborsato; remboursé; reembolsado; zwrócone; återbetalning; card number; no payment; amount
in; payment reminder; billing information; billing details; payment details; payment information; usage charges;
credits; wird abgebucht; summa; varav; din faktura; betalningen; tu factura; votre abonnement; tu suscripción; tuo
abbonamento; sua assinatura; je abonnement; twoja subskrypcja; ditt abonnemang; your bill; bill is; your card; card
payment; credit card; debit; account number; account ending; you paid; you sent; sent you; money; wire; remittance;
payable; fee; premium is; trade; executed; receipt; invoice; your invoice; invoice number; payment received; your
payment; payment of; payment method; payment failed; payment was; amount due; amount paid; amount; total; total due;
grand total; due date; was charged; been charged; charged; billed; billing period; card ending; ending in; visa;
mastercard; iban; vat; tax; transaction; transaction id; statement; direct debit; bank transfer; paid; balance due;
deposit; withdrawal; payout; salary; payslip; past due; overdue; reminder; renewal; renews; subscription has; purchase;
transfer; declined; rechnung; quittung; beleg; zahlung; betrag; gesamtbetrag; gesamtsumme; gesamt; summe; mwst; ust;
lastschrift; abgebucht; überweisung; kontoauszug; fällig; mahnung; verwendungszweck; fälligkeit; gehaltsabrechnung;
kundennummer; facture; votre facture; reçu; paiement; montant; total ttc; tva; prélèvement; virement; échéance; relevé;
débité; carte bancaire; impayé; solde; règlement; factura; recibo; pago; importe; iva; cargo; vencimiento; extracto;
cobro; cobrado; tarjeta terminada; nómina; fattura; ricevuta; pagamento; importo; totale; bonifico; addebito; scadenza;
estratto conto; carta che; fatura; valor total; valor; boleto; cobrança; vencimento; cartão final; cartão terminado;
nota fiscal; pix; extrato; factuur; betaling; bedrag; totaal; btw; incasso; afgeschreven; vervaldatum; ontvangstbewijs;
betaalbewijs; kassabon; rekening; overboeking; faktura; faktury; fakturę; paragon; płatność; kwota; kwotę; razem; suma;
przelew; termin płatności; obciążona; rachunek; zapłaty; opłacone; kvitto; kvittering; belopp; beløb; moms; betalning;
förfallodatum; forfald; betalt""",
    "account": """
vence en; úsalo; te lo; nadie de; para entrar; backup codes; recovery codes; domain verified; nothing else; for minutes;
within minutes; was connected; all set; been verified; sido verificada; were unable; essai gratuit; been unsubscribed;
be unsubscribed; resubscribe; signup; login link; took you; subscribe again; gesperrt; qualcuno è; zugriff; entrato nel;
one last; almost there; prove you; paste this; paste the; and paste; copy and; trouble with; trouble clicking; button
above; button below; link below; one time; your activity; your sign; your password; inscription; ne tenez; pas compte;
new password; trial ends; trial expires; trial expired; trial period; trial has; trial start; trial end; trial will;
trial ended; your trial; okres próbny; testphase; testzeitraum; d essai; de prueba; di prova; período de; proefperiode;
provperiod; magic link; paused your; reactivate; your data; your profile; set up; be deleted; be removed; be suspended;
suspended; disabled; was added; was removed; was created; been changed; been removed; been added; been created; login
information; disregard this; don recognise; don recognize; zugang; ihre daten; deine daten; wurde geändert; wurde
hinzugefügt; wurde gelöscht; unbekannten gerät; dein passwort; ihr passwort; vos données; bien été; tus datos; ha sido;
è stato; è stata; foi alterada; foi alterado; foi adicionado; foi criada; is gewijzigd; is toegevoegd; je gegevens;
został; została; zmienione; har ändrats; går ut; er ændret; no creaste; läuft am; endet am; endet in; expire le; kończy
się; dias restantes; enter this; enter the; your pin; use this; this code; this link; link expires; security team;
recovery; recover your; set a; email verification; finish setting; complete your; registration; signing up; password;
reset your; password reset; verification; verification code; security code; passcode; your code; login code; sign in;
signed in; log in; logged in; login; new device; new login; two factor; 2fa; authenticate; verify your; verify email;
verify it; confirm your; confirm email; activate; activate your; your account; email address; security alert;
suspicious; unusual; t request; not request; did not; you requested; requested to; expires in; will expire; valid for;
ignore this; safely ignore; wasn t; was not; if this; recognize; ip address; not share; never share; t share; code is;
account settings; settings have; username; account information; almost done; api key; locked; deactivated; deleted;
account has; secure your; was changed; changed; kennwort; zurücksetzen; bestätigungscode; sicherheitscode; einmalcode;
einmalpasswort; anmeldung; anmeldeversuch; angemeldet; neues gerät; bestätigen sie; bestätige deine; mail adresse;
aktivieren; nicht angefordert; ignorieren; gültig; angefordert; benutzername; dein konto; ihr konto; ihres kontos;
zugangsdaten; geben sie; tan; code lautet; niemals weiter; mot de; réinitialiser; code de; vérification; connexion;
nouvel appareil; confirmez votre; activer; activez votre; votre compte; pas à; l origine; ignorez; ignorer; expire dans;
identifiant; usage unique; valable; ne communiquez; contraseña; restablecer; código es; iniciar sesión; inicio de; nuevo
dispositivo; verifica tu; confirma tu; activar; activa tu; tu cuenta; su cuenta; no solicitaste; no has; ignora este;
caduca; expira; usuario; no compartas; válido; reimpostare; codice di; codice è; verifica il; verifica la; accesso;
nuovo dispositivo; conferma il; conferma la; attiva il; tuo account; non hai; ignora questa; scade; nome utente; valido;
non condividere; richiesto; senha; palavra passe; redefinir; código é; iniciar sessão; novo dispositivo; novo acesso;
confirme o; confirme seu; ative; ativar; sua conta; não solicitou; ignore este; expira em; não compartilhe; não
partilhe; wachtwoord; herstellen; beveiligingscode; inlogcode; ingelogd; inloggen; aanmelding; nieuw apparaat; bevestig
je; bevestig uw; activeer; je account; uw account; niet aangevraagd; negeren; verloopt; geldig; gebruikersnaam; deel
deze; hasło; hasła; zresetuj; zresetować; kod weryfikacyjny; weryfikacja; logowanie; zaloguj; zalogowano; nowe
urządzenie; nowego urządzenia; potwierdź; aktywuj; aktywacja; twoje konto; twojego konta; zignoruj; wygasa; ważny; nie
udostępniaj; jednorazowy; lösenord; adgangskode; passord; återställ; nulstil; tilbakestill; verifieringskod;
bekræftelseskode; engangskode; logga in; bekräfta; bekreft; ditt konto; din konto""",
    "booking": """
upcoming stay; hosting you; stay in; look forward; your upcoming; je reservering; uw reservering; stay valid; afspraak
is; verplaatst; verzet; is booked; to calendar; for registering; join link; your registration; your ticket; been booked;
has registered; meeting with; video call; attendee; attendees; time off; your room; estancia; habitación; hora de;
estadia; quarto; camera; kamer; pokój; zimmer; chambre; votre séjour; godz; scheduled for; see you; reminder your;
platform; coach; terminal; checkin; table for; party of; doors open; row; pickup time; dropped off; picked up; trip
fare; journey; on time; delayed; booking; booking reference; reservation; booking confirmed; appointment; check in;
check out; itinerary; boarding; boarding pass; flight; departure; arrival; gate; seat; passenger; guests; nights;
confirmation number; your tickets; e ticket; your stay; your visit; your appointment; your trip; your ride; your table;
rescheduled; cancelled; canceled; arrive; room type; driver; fare; your booking; your reservation; admit; meeting id;
buchung; reservierung; termin; ihr termin; dein termin; abflug; ankunft; abfahrt; sitzplatz; wagen; gäste; nächte;
arzttermin; sprechstunde; anreise; abreise; ihr ticket; verspätung; storniert; réservation; rendez vous; votre rendez;
votre vol; votre billet; billet; départ; arrivée; siège; passager; voyageurs; nuits; annulé; annulation; voiture;
dossier; tu reserva; su reserva; reserva confirmada; de reserva; cita; tu cita; su cita; vuelo; salida; llegada;
asiento; pasajero; noches; huéspedes; billete; prenotazione; appuntamento; volo; partenza; arrivo; posto; passeggero;
notti; ospiti; biglietto; carrozza; agendamento; consulta; voo; partida; chegada; assento; noites; hóspedes; bilhete;
marcação; boeking; afspraak; je afspraak; uw afspraak; vlucht; vertrek; aankomst; stoel; passagier; nachten;
geannuleerd; rezerwacja; wizyta; wizyty; wizytę; lot; odlot; wyjazd; przyjazd; miejsce; pasażer; nocy; bilet; bilety;
odwołana; bokning; avgång; afgang; ankomst; tid hos; din tid; din aftale; din time""",
    "notice": """
your landlord; our lab; your numbers; gekündigt; ihr abo; dein abo; schade; our records; is due; your yearly; your
annual; optician; appeal; our rules; build failed; build passed; our guidelines; taken down; took down; your listing;
your post; solved; opens again; suppliers; supplier; contact details; wary; mise en; sans action; finished; moved to;
price change; been cancelled; charged again; on hold; your file; the file; low balance; fell under; next renewal; your
cv; your interest; in touch; applying; applied; exposed; attacker; hashed; database; truly sorry; customer agreement;
notice period; arbitration; no action; family portal; report card; kündigen; kündigung; mitgliedschaft; verlängert;
jahresabo; actualizado nuestra; condiciones; elevated; degraded; postmortem; maintenance; membership has; your
membership; pupil; dmarc; dns; silence this; warning; vulnerability; security update; usage; quota; limit; limits;
reached; interruption; take effect; takes effect; terms and; mandatory; service announcement; regret; information was;
apologize; apologise; inconvenience; your plan; your subscription; cancellation; downgraded; security incident; was
accepted; pleased to; delighted to; changes to; updating our; our privacy; gdpr; agreement; compliance; policies; you
agree; aktualisieren unsere; politique de; confidentialité; política de; privacidad; privacidade; informativa;
voorwaarden; polityka prywatności; datenpanne; vorfall; fuite de; violation de; brecha; violazione; datalek; naruszenie;
rent; repair; repaired; reading; on call; grade was; labour; fixed; erinnerung; abgeholt; versichertenkarte; abrechnung;
jahresabrechnung; zählerstand; guthaben; reparatur; werkstatt; miete; rezept liegt; liegt bereit; steht bereit; rappel;
absence; ordonnance; loyer; réparation; consommation; justifier; vie scolaire; médecin; informons que; vous informons;
espace client; recordatorio; avería; alquiler; médico; le informamos; área de; localizador; promemoria; bolletta;
affitto; la informiamo; area clienti; lembrete; renda; aluguel; vence em; informamos que; herinnering; jaarafrekening;
afrekening; klantnummer; huur; huisarts; recept ligt; staat klaar; ligt klaar; przypomnienie; wizycie; gabinet; lekarz;
recepta; recepty; czynsz; naprawa; numer klienta; informujemy; prosimy o; påminnelse; recept klart; online banking;
session; postfach; posteingang; new document; neues dokument; your plate; please contact; contact the; call us; dear
customer; dear resident; your portal; patient; doctor; clinic; school office; class; student; council; permit; decision;
deadline; due by; approved; declined; rejected; completed; resolved; investigating; scheduled maintenance; latency;
error; errors; deploy; commit; pipeline; expires on; renew; your licence; your license; tax office; your records;
affected; third party; reviewed; review the; leave request; your manager; shift; ticket number; support ticket; support
request; case number; your case; reference number; your application; your claim; policy number; your contract; your
request; we received; have received; has received; terms of; privacy policy; incident; outage; data breach; personal
data; unauthorized; effective; required to; regulation; notify you; action required; was updated; been updated; been
approved; been completed; been received; is ready; has failed; alert; threshold; backup; server; deployment; failed;
downtime; disk; report is; export; download your; attached; attachment; please find; prescription; results; test
results; lab; enrollment; grade; certificate; signed; signature; document; vorgangsnummer; ihre anfrage; ihr antrag; ihr
anliegen; eingegangen; ticketnummer; vertrag; ihr vertrag; schadensnummer; datenschutz; im anhang; anbei;
nutzungsbedingungen; bescheid; bewerbung; bearbeitet; aktenzeichen; votre demande; votre dossier; de dossier; votre
contrat; pièce jointe; ci joint; conditions générales; bien reçu; candidature; sinistre; su solicitud; tu solicitud;
solicitud; de caso; contrato; adjunto; adjunta; hemos recibido; expediente; tua richiesta; sua richiesta; richiesta; in
allegato; allegato; abbiamo ricevuto; pratica; segnalazione; sua solicitação; protocolo; em anexo; anexo; recebemos;
chamado; je aanvraag; uw aanvraag; uw verzoek; je verzoek; bijlage; dossiernummer; contract; polis; ontvangen;
sollicitatie; melding; storing; twój wniosek; wniosek; zgłoszenie; numer sprawy; umowa; umowy; załączniku; otrzymaliśmy;
regulamin; reklamacja; ärende; ditt ärende; din ansökan; din sag; bifogad; vedhæftet; vedlagt""",
    "person": """
accepted your; joined your; your invitation; this thread; the thread; pull request; following your; followers; vous a; à
signer; to sign; to connect; connect with; join your; asked to; viewed the; was opened; you shared; file you; opened by;
shared the; you got; messaged you; wrote you; liked your; reviewed your; removed you; outbid; bid; a comment; reacted
to; followed you; following you; declined your; friend request; is following; left you; asked you; on behalf; shared
your; sent this; was assigned; you as; thread; in reply; hat deine; hat ihnen; te invitó; te invita; ti invita; vous
invité; nodigt je; zaprasza cię; bjöd in; inviterede dig; har bjudit; har kommenterat; commented; replied; mentioned
you; assigned; assigned to; shared a; shared with; invited you; has invited; invitation to; accept invitation; sent you;
new message; tagged; approved your; requested access; wants to; merged; pushed; your team; added you; workspace; reply
above; kommentiert; hat dich; hat sie; eingeladen; zugewiesen; neue nachricht; a commenté; vous invite; nouveau message;
ha comentado; te ha; mensaje nuevo; nuevo mensaje; ha commentato; ti ha; nuovo messaggio; comentou; convidou; nova
mensagem; heeft gereageerd; heeft je; uitgenodigd; nieuw bericht; skomentował; zaprosił; nowa wiadomość; bjudit in""",
}


def _stems(entry: str) -> str:
    return " ".join(word[:STEM] for word in entry.split())


# By stems, a blank between two: the kinds that an entry speaks for, and how it is spelled for people.
ENTRIES: dict[str, tuple[str, ...]] = {}
SPELLED: dict[str, str] = {}
for _kind, _words in _TABLE.items():
    for _entry in (" ".join(entry.split()) for entry in _words.split(";")):
        _stem = _stems(_entry)
        if _kind not in ENTRIES.get(_stem, ()):
            ENTRIES[_stem] = (*ENTRIES.get(_stem, ()), _kind)
            SPELLED.setdefault(_stem, _entry)
FIRSTS = frozenset(entry.split()[0] for entry in ENTRIES if " " in entry)  # what two words may begin with
